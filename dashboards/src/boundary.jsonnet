local s = import 'segprobe.libsonnet';
local v = s.variables;

local boundary = 'cluster=~"$cluster", boundary=~"$boundary"';
local here = boundary + ', node=~"$node"';
local check = 'cluster, node, pod, source_namespace, source, check, target_namespace, target, via';
local check_columns = [
  ['cluster', 'cluster'],
  ['node', 'node'],
  ['pod', 'agent'],
  ['source_namespace', 'from namespace'],
  ['source', 'from'],
  ['check', 'check'],
  ['target_namespace', 'to namespace'],
  ['target', 'to'],
  ['via', 'via'],
];

s.dashboard(
  'segprobe-boundary',
  'segprobe: boundary',
  'One boundary: who reaches what, which node reports it, why, and what the verdicts rest on.',
  [
    ['How to read a verdict', 'README.md#how-to-read-a-verdict', 'What pass, unverified, inconclusive and fail say.'],
    ['Runbooks', 'docs/runbooks', 'What to do about each alert.'],
    ['Dashboards', 'docs/dashboards.md', 'What each panel shows.'],
  ],
  [v.datasource, v.cluster, v.boundary, v.node],
  [
    s.row('$boundary', [
      s.stat(
        'Verdict',
        'none',
        6,
        5,
        'The worst verdict of the boundary on the chosen nodes. Where it must be blocked, FAIL is a breach; where it must be open, an outage.',
        [s.now('max(\n%s\n)' % s.worst_state('cluster', here), 'verdict')],
      ) + s.verdict_words + s.with({ noValue: 'NO DATA' }),
      s.stat(
        'Checks',
        'short',
        10,
        5,
        'Checks of the boundary by verdict, summed over the chosen nodes.',
        s.by_verdict('sum(segprobe_boundary_checks{%s, verdict="%%s"})' % here, instant=true),
      ) + s.verdict_columns,
      s.stat(
        'Nodes that report a fail',
        'short',
        4,
        5,
        'How many nodes have a check that fails. One node alone: look at that node. All of them: look at the target or its policy.',
        [s.now(
          'count(sum by (cluster, node) (segprobe_boundary_checks{%s, verdict="fail"}) > 0)\nor sum(segprobe_boundary_info{%s}) * 0' % [here, here],
          'nodes'
        )],
      ) + s.bad_above_zero,
      s.stat(
        'Oldest sweep',
        's',
        4,
        5,
        'Age of the oldest completed sweep of a chosen node. Past three intervals the verdicts of that node are served as inconclusive (stale).',
        [
          s.now('max(time() - segprobe_sweep_last_completed_timestamp_seconds{%s})' % here, 'oldest sweep'),
          s.now('max(segprobe_boundary_interval_seconds{%s})' % here, 'interval'),
        ],
      ) + s.runbook('SegprobeSweepStale'),
    ]),

    s.row('Who reaches what?', [
      s.matrix(
        'Source × target',
        'none',
        24,
        11,
        |||
          The worst verdict of each target (down) from each source (across) on the chosen nodes. An empty cell has no series of its own: it is not
          asked from there, or the agent has more checks than `series.every_check` and it neither fails nor is inconclusive: see "Without series".
          Techniques of DNS are on the dashboard "DNS exposure". With thousands of nodes choose some: this reads the series of each check.
        |||,
        'max by (from, to) (%s)' % s.joined(
          'from', ['source_namespace', 'source'], s.joined(
            'to', ['target_namespace', 'target', 'via'], s.worst_verdict('source_namespace, source, target_namespace, target, via', here + ', via!=""')
          )
        ),
        'to',
        'from',
      ) + s.verdict_words,
      s.table(
        'What is reached, and which node reports it',
        'none',
        24,
        9,
        'Each check that fails, with the node and the pod of the agent that saw it. The page of that agent (`/`, over loopback) has the addresses.',
        [s.query('max by (%s) (segprobe_check_verdict{%s, verdict="fail"} == 1)' % [check, here])],
        check_columns + [['Value', 'fail']],
        'node',
        descending=false,
      ) + s.with({}, [
        s.linked('node', [s.links.node]),
        s.by_name('fail', { mappings: [{ type: 'value', options: { '1': { text: 'FAIL', color: 'red', index: 0 } } }] }),
      ]) + s.runbook('SegprobeBreach') + s.runbook('SegprobeOutage'),
    ]),

    s.row('Is it a node, or a target?', [
      s.table(
        'By node',
        'short',
        12,
        9,
        'Checks by node and verdict. One node that fails at many targets: its own enforcement is dead, on the way out. Click it to see the agent.',
        s.by_verdict('sum by (cluster, node) (segprobe_boundary_checks{%s, verdict="%%s"})' % here),
        [['cluster', 'cluster'], ['node', 'node']]
        + [['Value #' + std.char(65 + i), s.verdicts[i].verdict] for i in std.range(0, 3)],
        'fail',
      ) + s.verdict_columns + s.with({}, [s.linked('node', [s.links.node])]),
      s.table(
        'Targets that are reached',
        'short',
        12,
        9,
        'How many nodes reach a target. One target from many nodes: its policy is missing, or enforcement is dead on its own node, on the way in.',
        [s.query('count by (cluster, target_namespace, target, via, check) (max by (cluster, node, target_namespace, target, via, check) (segprobe_check_verdict{%s, verdict="fail"}) == 1)' % here)],
        [
          ['cluster', 'cluster'],
          ['target_namespace', 'to namespace'],
          ['target', 'to'],
          ['via', 'via'],
          ['check', 'check'],
          ['Value', 'nodes'],
        ],
        'nodes',
      ) + s.with({}, [s.by_name('nodes', { thresholds: s.steps('text', [{ value: 1, color: 'red' }]) })]),
    ]),

    s.row('Why?', [
      s.timeseries(
        'Reasons that are no pass',
        'short',
        12,
        9,
        'Checks that are not `pass`, by reason, over time.',
        [s.query('sum by (verdict, reason) (segprobe_boundary_checks{%s, verdict!="pass"}) > 0' % here, '{{verdict}}: {{reason}}')],
        stacked=true,
      ),
      s.table(
        'Inconclusive, by node',
        'short',
        12,
        9,
        'Why a node knows nothing: mend what the reason names. Nothing is tested there meanwhile.',
        [s.query('topk(500, sum by (cluster, node, reason) (segprobe_boundary_checks{%s, verdict="inconclusive"}) > 0)' % here)],
        [['cluster', 'cluster'], ['node', 'node'], ['reason', 'reason'], ['Value', 'inconclusive']],
        'inconclusive',
      ) + s.verdict_columns + s.with({}, [s.linked('node', [s.links.node])]) + s.runbook('SegprobeInconclusive'),
    ]),

    s.row('What the verdicts rest on', [
      s.table(
        'Unverified here, and open from the high zone',
        'none',
        16,
        9,
        |||
          Endpoints that are silent here while an agent in the high zone (a boundary that expects `open`) reaches the same target: together they are the
          proof that neither is alone. It tells of now; the recording rule tells of a window.
        |||,
        [s.query(
          |||
            max by (%(check)s) (segprobe_check_verdict{%(here)s, expect="blocked", verdict="unverified", via="endpoint"} == 1)
            and on (cluster, check, target_namespace, target, via)
            segprobe_check_verdict{cluster=~"$cluster", expect="open", verdict="pass", via="endpoint"} == 1
          ||| % { check: check, here: here }
        )],
        check_columns + [['Value', 'proven']],
        'to',
        descending=false,
      ) + s.with({}, [
        s.by_name('proven', { mappings: [{ type: 'value', options: { '1': { text: 'by a witness', color: 'green', index: 0 } } }] }),
        s.linked('node', [s.links.node]),
      ]),
      s.table(
        'Nodes with pods of both zones',
        'short',
        8,
        9,
        'Running pods by zone on nodes where `co_residency` found both zones (PCI guidance 16.2: dedicated nodes). Empty where it is off or all is apart.',
        [s.query(
          |||
            max by (cluster, node, zone) (segprobe_node_pods{cluster=~"$cluster", node=~"$node"})
            and on (cluster, node)
            sum by (cluster, node) (segprobe_boundary_checks{%s, reason="co-resident"}) > 0
          ||| % here
        )],
        [['cluster', 'cluster'], ['node', 'node'], ['zone', 'zone'], ['Value', 'pods']],
        'node',
        descending=false,
      ) + s.with({}, [s.linked('node', [s.links.node])]) + s.runbook('SegprobeCoResidency'),
    ]),

    s.row('Sweeps', [
      s.timeseries(
        'Duration of sweeps',
        's',
        8,
        8,
        'How long the sweeps of the chosen nodes take, beside the interval. Near the interval they overrun: raise it, or lower the number of targets.',
        [
          s.query('histogram_quantile(0.5, sum by (le) (rate(segprobe_sweep_duration_seconds_bucket{%s}[$__rate_interval])))' % here, 'half of them'),
          s.query('histogram_quantile(0.99, sum by (le) (rate(segprobe_sweep_duration_seconds_bucket{%s}[$__rate_interval])))' % here, '99 %'),
          s.query('max(segprobe_boundary_interval_seconds{%s})' % here, 'interval'),
        ],
      ),
      s.timeseries(
        'Skipped sweeps',
        'short',
        8,
        8,
        'Sweeps that were skipped because one was still running.',
        [s.query('sum(increase(segprobe_sweep_overruns_total{%s}[$__rate_interval]))' % here, 'skipped')],
        style='bars',
      ),
      s.timeseries(
        'Open only while new',
        'short',
        8,
        8,
        'Pods or targets that were open for a moment when they were new, within `pods.startup_window`: no findings. Many of them say that policies come late.',
        [s.query('sum(increase(segprobe_startup_open_seconds_count{%s}[$__rate_interval]))' % here, 'opened')],
        style='bars',
      ),
      s.timeseries(
        'Shared work',
        'short',
        12,
        8,
        'nodes: how many agents share the targets, 1 = each probes everything. sweeps: within so many each node probes each target.',
        [
          s.query('max(segprobe_boundary_share_nodes{%s})' % here, 'nodes'),
          s.query('max(segprobe_boundary_share_sweeps{%s})' % here, 'sweeps'),
        ],
      ),
      s.timeseries(
        'Without series',
        'short',
        12,
        8,
        'Checks that are in the totals and have no series of their own (`series.every_check`, `series.worst_checks`): the matrix above lacks them.',
        [s.query('sum(segprobe_series_suppressed{%s})' % here, 'checks')],
      ) + s.runbook('SegprobeSeriesSuppressed'),
    ]),
  ],
  [s.findings_annotation(boundary)],
)
