local s = import 'segprobe.libsonnet';
local v = s.variables;

local cluster = 'cluster=~"$cluster"';
local blocked = cluster + ', expect="blocked"';
local open = cluster + ', expect="open"';
local scraped = 'cluster=~"$cluster", job=~"$job"';
// By namespace first: agents of several kinds may have a boundary of the same name, and one kind's checks are not the other's.
local worst_state(selector) = 'max by (cluster, boundary) (\n%s\n)' % s.worst_state('cluster, namespace, boundary', selector);
// 0 where there are agents and nothing to count; nothing where there is no agent, so that silence is not read as good news.
local or_zero = '\nor sum(segprobe_boundary_info{%s}) * 0' % cluster;

s.dashboard(
  'segprobe-overview',
  'segprobe: overview',
  'Are we segmented? All boundaries of the clusters, what is open now and was, and how much of it is proven.',
  [
    ['How to read a verdict', 'README.md#how-to-read-a-verdict', 'What pass, unverified, inconclusive and fail say.'],
    ['Reasons', 'docs/metrics.md#reasons', 'The closed list of reasons.'],
    ['Runbooks', 'docs/runbooks', 'What to do about each alert.'],
    ['Dashboards', 'docs/dashboards.md', 'What each panel shows.'],
  ],
  [v.datasource, v.cluster, v.job],
  [
    s.row('Are we segmented?', [
      s.stat(
        'Are we segmented?',
        'none',
        6,
        5,
        |||
          The worst of all boundaries that must be blocked. BREACHED: something was reached or enumerated. NOT KNOWN: a check is inconclusive.
          NOTHING TESTED: the agents of a namespace have no checks of a boundary. NOT PROVEN: something is silent, and nobody proved it alive.
          PROVEN: everything passed. Only of agents that answer: see the two panels on the right.
        |||,
        [s.now('max(\n%s\n)' % worst_state(blocked), 'all boundaries')],
      ) + s.state_words,
      s.stat(
        'Checks that fail now',
        'short',
        4,
        5,
        'Open findings: what is reached or enumerated now, or was and is not yet closed. Each node counts its own.',
        [s.now('sum(segprobe_boundary_checks{%s, verdict="fail"})' % blocked, 'fail')],
      ) + s.bad_above_zero,
      s.stat(
        'Nodes with a finding',
        'short',
        4,
        5,
        'Nodes where a finding was opened in the time range, by the time of the last one: it counts what was over before the next scrape, too.',
        [s.now(
          'count(count by (cluster, node) (\n  max_over_time(segprobe_last_finding_timestamp_seconds{%s}[$__range]) > time() - $__range_s\n))' % cluster
          + or_zero, 'nodes'
        )],
      ) + s.bad_above_zero,
      s.stat(
        'Last finding',
        'dateTimeFromNow',
        4,
        5,
        'When the last finding of the time range was opened. It may be closed by now.',
        [s.now('max(max_over_time(segprobe_last_finding_timestamp_seconds{%s}[$__range])) * 1000' % cluster, 'last finding')],
      ) + s.with({ noValue: 'none' }),
      s.stat(
        'Agents that do not answer',
        'short',
        3,
        5,
        'Targets of the scrape jobs that were down at the last scrape. What their nodes do is not known: nothing above speaks of them.',
        [s.now('count(up{%s}) - sum(up{%s})' % [scraped, scraped], 'agents')],
      ) + s.bad_above_zero + s.runbook('SegprobeAgentDown'),
      s.stat(
        'Nodes without an agent',
        'short',
        3,
        5,
        'Nodes of the cluster from which no agent is scraped. It needs kube-state-metrics (`kube_node_info`) in the same Prometheus.',
        [s.now(
          |||
            count(
              group by (cluster, node) (kube_node_info{%s})
              unless on (cluster, node) group by (cluster, node) (segprobe_boundary_info{%s})
            )
            or count(kube_node_info{%s}) * 0
          ||| % [cluster, cluster, cluster], 'nodes'
        )],
      ) + s.bad_above_zero + s.with({ noValue: 'needs kube-state-metrics' }) + s.runbook('SegprobeAgentMissing'),
    ]),

    s.row('Boundaries', [
      s.table(
        'Boundaries and verdicts',
        'short',
        16,
        9,
        |||
          Checks of each boundary by verdict, summed over all nodes. `expect` says what is expected: a fail of `blocked` is a breach, a fail of
          `open` an outage. Click a boundary to see who reaches what.
        |||,
        s.by_verdict('sum by (cluster, boundary, expect) (segprobe_boundary_checks{%s, verdict="%%s"})' % cluster),
        [['cluster', 'cluster'], ['boundary', 'boundary'], ['expect', 'expect']]
        + [['Value #' + std.char(65 + i), s.verdicts[i].verdict] for i in std.range(0, 3)],
        'fail',
      ) + s.verdict_columns + s.with({}, [s.linked('boundary', [s.links.boundary])]),
      s.stat(
        'Must be blocked',
        'none',
        4,
        9,
        'The worst verdict of each boundary that must be blocked: see "Are we segmented?".',
        [s.now(worst_state(blocked), '{{boundary}} {{cluster}}')],
      ) + s.state_words + s.named,
      s.stat(
        'Must be reachable',
        'none',
        4,
        9,
        'The worst verdict of each boundary that must be open. An OUTAGE is no finding; these agents are also the witnesses of the others.',
        [s.now(worst_state(open), '{{boundary}} {{cluster}}')],
      ) + s.outage_words + s.named + s.runbook('SegprobeOutage'),
    ]),

    s.row('Findings', [
      s.timeseries(
        'Checks that fail',
        'short',
        12,
        8,
        'Checks that fail, by boundary. It falls when findings are closed: after three blocked results in a row, or ten at a virtual address.',
        [s.query('sum by (boundary) (segprobe_boundary_checks{%s, verdict="fail"})' % blocked, '{{boundary}}')],
      ),
      s.timeseries(
        'Findings opened',
        'short',
        12,
        8,
        'Findings that were opened, by boundary and check. The marks of the annotation "Findings" are exact; these bars are interpolated by Prometheus.',
        [s.query(
          'sum by (boundary, check) (increase(segprobe_findings_total{%s}[$__rate_interval])) > 0' % cluster, '{{boundary}}: {{check}}'
        )],
        style='bars',
      ),
      s.table(
        'Nodes that report a fail',
        'short',
        12,
        9,
        'Which node reports it: the 100 nodes, boundaries and reasons with most failing checks. Click a node to see what it reaches.',
        [s.query('topk(100, sum by (cluster, node, boundary, expect, reason) (segprobe_boundary_checks{%s, verdict="fail"}) > 0)' % cluster)],
        [['cluster', 'cluster'], ['node', 'node'], ['boundary', 'boundary'], ['expect', 'expect'], ['reason', 'reason'], ['Value', 'fail']],
        'fail',
      ) + s.verdict_columns + s.with({}, [s.linked('node', [s.links.node_of_boundary, s.links.node])]) + s.runbook('SegprobeBreach'),
      s.table(
        'Last findings',
        'short',
        12,
        9,
        'The last finding of each node, boundary and check in the time range, the 100 latest: also those that are closed, and of agents that are gone.',
        [s.query(
          |||
            topk(100,
              max by (cluster, node, boundary, check) (max_over_time(segprobe_last_finding_timestamp_seconds{%s}[$__range]))
              > time() - $__range_s
            ) * 1000
          ||| % cluster
        )],
        [['Value', 'opened'], ['cluster', 'cluster'], ['node', 'node'], ['boundary', 'boundary'], ['check', 'check']],
        'opened',
      ) + s.with({}, [
        s.by_name('opened', { unit: 'dateTimeAsIso' }),
        s.linked('node', [s.links.node_of_boundary, s.links.node]),
      ]),
    ]),

    s.row('What is proven, and what is not', [
      s.timeseries(
        'Checks by verdict',
        'short',
        12,
        8,
        'All checks of boundaries that must be blocked, by verdict. A growing share that is not `pass` is a proof that gets weaker.',
        s.by_verdict('sum(segprobe_boundary_checks{%s, verdict="%%s"})' % blocked),
        stacked=true,
      ) + s.verdict_lines,
      s.bars(
        'Unverified share',
        'percentunit',
        6,
        8,
        'Share of the checks that are silent without anybody who proves the target alive. Give the zone a witness, or list endpoints instead of virtual addresses.',
        [s.now(
          'sum by (cluster, boundary) (segprobe_boundary_checks{%s, verdict="unverified"})\n/ sum by (cluster, boundary) (segprobe_boundary_checks{%s})'
          % [blocked, blocked], '{{boundary}} {{cluster}}'
        )],
      ) + s.with({ min: 0, max: 1, thresholds: s.steps('green', [{ value: 0.000001, color: 'blue' }, { value: 0.5, color: 'orange' }]) }) + s.runbook('SegprobeUnverified'),
      s.bars(
        'Inconclusive share',
        'percentunit',
        6,
        8,
        'Share of the checks of which nobody knows anything at the moment. The reasons below say what to mend.',
        [s.now(
          'sum by (cluster, boundary) (segprobe_boundary_checks{%s, verdict="inconclusive"})\n/ sum by (cluster, boundary) (segprobe_boundary_checks{%s})'
          % [blocked, blocked], '{{boundary}} {{cluster}}'
        )],
      ) + s.with({ min: 0, max: 1, thresholds: s.steps('green', [{ value: 0.000001, color: 'orange' }]) }) + s.runbook('SegprobeInconclusive'),
      s.table(
        'Reasons',
        'short',
        12,
        9,
        'Why the checks have the verdicts that they have. Each reason belongs to one verdict; the documentation says what each one means.',
        [s.query('sum by (expect, verdict, reason) (segprobe_boundary_checks{%s}) > 0' % cluster)],
        [['expect', 'expect'], ['verdict', 'verdict'], ['reason', 'reason'], ['Value', 'checks']],
        'checks',
      ) + s.with({}, [s.by_name('reason', { links: [{ title: 'What it says', url: s.docs + 'docs/metrics.md#reasons', targetBlank: true }] })]),
      s.table(
        'Coverage',
        'short',
        12,
        9,
        |||
          agents: those that test the boundary. without checks: those of them that have nothing to test, as on a node without a pod of the low zone.
          oldest sweep: age of the oldest completed sweep of an agent, in its intervals; up to 1 is on time, past 3 is stale. without series: checks
          that are in the totals only.
        |||,
        [
          s.query('count by (cluster, namespace, boundary) (segprobe_boundary_info{%s})' % cluster),
          s.query('sum by (cluster, namespace, boundary) (sum by (cluster, namespace, boundary, instance) (segprobe_boundary_checks{%s}) == bool 0)' % cluster),
          s.query(
            |||
              max by (cluster, namespace, boundary) (
                (time() - segprobe_sweep_last_completed_timestamp_seconds{%s})
                / on (cluster, job, instance, boundary) segprobe_boundary_interval_seconds{%s}
              )
            ||| % [cluster, cluster]
          ),
          s.query('sum by (cluster, namespace, boundary) (segprobe_series_suppressed{%s})' % cluster),
        ],
        [
          ['cluster', 'cluster'],
          ['namespace', 'namespace'],
          ['boundary', 'boundary'],
          ['Value #A', 'agents'],
          ['Value #B', 'without checks'],
          ['Value #C', 'oldest sweep'],
          ['Value #D', 'without series'],
        ],
        'oldest sweep',
      ) + s.with({}, [
        s.by_name('oldest sweep', { decimals: 1, unit: 'suffix: intervals', thresholds: s.steps('text', [{ value: 3, color: 'orange' }]) }),
        s.linked('boundary', [s.links.boundary]),
      ]),
    ]),
  ],
  [s.findings_annotation(cluster)],
)
