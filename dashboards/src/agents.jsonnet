local s = import 'segprobe.libsonnet';
local v = s.variables;

local agent = 'cluster=~"$cluster", job=~"$job", node=~"$node"';
local node_columns = [['cluster', 'cluster'], ['node', 'node'], ['pod', 'agent']];
local by_node = 'cluster, node, pod';
// Thousands of nodes are two lines: half of them are below the first, none above the second.
local spread(expr) = [s.query('quantile(0.5, %s)' % expr, 'half of the agents'), s.query('max(%s)' % expr, 'the highest')];

s.dashboard(
  'segprobe-agents',
  'segprobe: agents',
  'Can the agents be believed, are they up to date, and what do they cost?',
  [
    ['Runbooks', 'docs/runbooks', 'What to do about each alert.'],
    ['Reasons', 'docs/metrics.md#reasons', 'The closed list of reasons.'],
    ['Dashboards', 'docs/dashboards.md', 'What each panel shows.'],
  ],
  [v.datasource, v.cluster, v.job, v.node],
  [
    s.row('Are they there?', [
      s.stat(
        'Agents',
        'short',
        5,
        5,
        'Targets of the scrape jobs that answered the last scrape, and those that did not.',
        [s.now('sum(up{%s})' % agent, 'answer'), s.now('count(up{%s}) - sum(up{%s})' % [agent, agent], 'do not')],
      ) + s.with({}, [s.by_name('do not', { thresholds: s.steps('green', [{ value: 1, color: 'red' }]) })]),
      s.stat(
        'Nodes without an agent',
        'short',
        4,
        5,
        'Nodes of the cluster from which no agent is scraped. It needs kube-state-metrics (`kube_node_info`) in the same Prometheus.',
        [s.now(
          |||
            count(
              group by (cluster, node) (kube_node_info{cluster=~"$cluster", node=~"$node"})
              unless on (cluster, node) group by (cluster, node) (segprobe_boundary_info{%s})
            )
            or count(kube_node_info{cluster=~"$cluster", node=~"$node"}) * 0
          ||| % agent, 'nodes'
        )],
      ) + s.bad_above_zero + s.with({ noValue: 'needs kube-state-metrics' }) + s.runbook('SegprobeAgentMissing'),
      s.stat(
        'Old configuration',
        'short',
        5,
        5,
        'Agents whose last reload failed: they go on with the configuration before it. The log has file, line and column.',
        [s.now('sum(segprobe_config_last_reload_successful{%s} == bool 0)' % agent, 'agents')],
      ) + s.bad_above_zero + s.runbook('SegprobeConfigNotReloaded'),
      s.stat(
        'Runtime silent',
        'short',
        5,
        5,
        'Agents whose container runtime does not tell its pods: nothing is probed from pods there. Only where pods are looked at.',
        [s.now('sum(segprobe_runtime_up{%s} == bool 0)' % agent, 'agents')],
      ) + s.bad_above_zero + s.with({ noValue: 'no agent asks one' }) + s.runbook('SegprobeRuntimeUnreadable'),
      s.stat(
        'Without ICMP evidence',
        'short',
        5,
        5,
        'Agents on kernels before 5.8, which cannot tell an RST from an ICMP rejection: `refused` needs a witness there.',
        [s.now('sum(segprobe_icmp_evidence{%s} == bool 0)' % agent, 'agents')],
      ) + s.with({ thresholds: s.steps('green', [{ value: 1, color: 'blue' }]) }),
      s.table(
        'Agents that do not answer',
        'none',
        8,
        8,
        'Targets of the scrape jobs that were down at the last scrape: their nodes are not tested, or nobody hears of it.',
        [s.query('topk(500, up{%s} == 0)' % agent)],
        [['cluster', 'cluster'], ['node', 'node'], ['pod', 'agent'], ['instance', 'instance'], ['Value', 'up']],
      ) + s.with({}, [
        s.by_name('up', { mappings: [{ type: 'value', options: { '0': { text: 'DOWN', color: 'red', index: 0 } } }] }),
      ]) + s.hide(['__name__', 'job', 'namespace']) + s.runbook('SegprobeAgentDown'),
      s.table(
        'Nodes without an agent: which',
        'none',
        8,
        8,
        'Is the node tainted, is there no room, or is it new? It needs kube-state-metrics (`kube_node_info`).',
        [s.query(
          |||
            topk(500,
              group by (cluster, node) (kube_node_info{cluster=~"$cluster", node=~"$node"})
              unless on (cluster, node) group by (cluster, node) (segprobe_boundary_info{%s})
            )
          ||| % agent
        )],
        [['cluster', 'cluster'], ['node', 'node'], ['Value', 'agent']],
      ) + s.with({}, [
        s.by_name('agent', { mappings: [{ type: 'value', options: { '1': { text: 'NONE', color: 'red', index: 0 } } }] }),
      ]),
      s.table(
        'Versions',
        'short',
        8,
        8,
        'Agents, and discovery where the job has it, by version and revision: more than one while a rollout goes on, or where one hangs.',
        [s.query('count by (cluster, version, revision) (segprobe_build_info{%s})' % agent)],
        [['cluster', 'cluster'], ['version', 'version'], ['revision', 'revision'], ['Value', 'agents']],
        'agents',
      ),
    ]),

    s.row('Can they be believed?', [
      s.timeseries(
        'Controls that are not good',
        'short',
        12,
        8,
        |||
          positive: the vantage cannot reach what it may (`vantage-offline`). loss: it loses packets (`lossy`). negative: it connects to an address that
          nobody has, and sidecar: one listens in the pod (`captured`). Nothing is proven from there meanwhile.
        |||,
        [s.query('sum by (kind) (segprobe_control_ok{%s} == bool 0)' % agent, '{{kind}}')],
      ),
      s.table(
        'Controls that are not good: where',
        'none',
        12,
        8,
        'Node, source and control. One node: its network. One control everywhere: what it asks is down, or was moved.',
        [s.query('topk(500, max by (%s, source_namespace, source, kind, control) (segprobe_control_ok{%s} == 0))' % [by_node, agent])],
        node_columns + [
          ['source_namespace', 'namespace'],
          ['source', 'source'],
          ['kind', 'kind'],
          ['control', 'control'],
          ['Value', 'state'],
        ],
      ) + s.with({}, [
        s.by_name('state', { mappings: [{ type: 'value', options: { '0': { text: 'NOT GOOD', color: 'orange', index: 0 } } }] }),
      ]) + s.runbook('SegprobeVantageOffline') + s.runbook('SegprobeVantageLossy') + s.runbook('SegprobeVantageCaptured'),
      s.timeseries(
        'What connects see',
        'cps',
        12,
        8,
        'TCP connects of all chosen agents by outcome, controls excluded: `filtered` and `rejected` are policies at work, or nobody there.',
        [s.query('sum by (outcome) (rate(segprobe_probes_total{%s, check!~"%s"}[$__rate_interval])) > 0' % [agent, s.dns_techniques], '{{outcome}}')],
        stacked=true,
      ),
      s.timeseries(
        'Duration of connects',
        's',
        12,
        8,
        'Time until a connect was answered, those that timed out excluded. Near 1 s the first SYN was lost.',
        [
          s.query('histogram_quantile(0.5, sum by (le) (rate(segprobe_probe_duration_seconds_bucket{%s}[$__rate_interval])))' % agent, 'half of them'),
          s.query('histogram_quantile(0.99, sum by (le) (rate(segprobe_probe_duration_seconds_bucket{%s}[$__rate_interval])))' % agent, '99 %'),
        ],
      ),
    ]),

    s.row('Are they up to date?', [
      s.table(
        'Oldest sweeps',
        'suffix: intervals',
        12,
        8,
        'Age of the last completed sweep in intervals of its boundary, the 20 oldest. Up to 1 is on time; past 3 the verdicts are served as `stale`.',
        [s.query(
          |||
            topk(20, max by (%s, boundary) (
              (time() - segprobe_sweep_last_completed_timestamp_seconds{%s})
              / on (cluster, job, instance, boundary) group_left () segprobe_boundary_interval_seconds{%s}
            ))
          ||| % [by_node, agent, agent]
        )],
        node_columns + [['boundary', 'boundary'], ['Value', 'age']],
        'age',
      ) + s.with({ decimals: 1 }, [
        s.by_name('age', { thresholds: s.steps('text', [{ value: 3, color: 'orange' }]) }),
        s.linked('boundary', [s.links.node_of_boundary]),
      ]) + s.runbook('SegprobeSweepStale'),
      s.timeseries(
        'Skipped sweeps',
        'short',
        12,
        8,
        'Sweeps that were skipped because one was still running, by boundary.',
        [s.query('sum by (boundary) (increase(segprobe_sweep_overruns_total{%s}[$__rate_interval]))' % agent, '{{boundary}}')],
        style='bars',
      ),
      s.timeseries(
        'Age of the discovered targets',
        's',
        8,
        8,
        |||
          Time since discovery last vouched for a target file, of the agent where it is longest. It grows where discovery is down or cannot write.
          oldest written: the same as discovery tells it. That alone shows a file that is lost.
        |||,
        [
          s.query('max by (file) (time() - segprobe_targets_heartbeat_timestamp_seconds{%s})' % agent, '{{file}}'),
          s.query('max(time() - segprobe_discovery_heartbeat_timestamp_seconds{cluster=~"$cluster"})', 'oldest written'),
        ],
      ) + s.with({ noValue: 'no discovery' }) + s.runbook('SegprobeTargetsStale') + s.runbook('SegprobeTargetsNotWritten'),
      s.timeseries(
        'Age of the configuration',
        's',
        8,
        8,
        'Time since an agent last loaded its configuration: a change shows as a fall, and the highest says when the last agent took it.',
        spread('time() - segprobe_config_last_reload_success_timestamp_seconds{%s}' % agent),
      ),
      s.timeseries(
        'Checks without series',
        'short',
        8,
        8,
        'Checks that are in the totals and have no series of their own (`series.every_check`, `series.worst_checks`), of all chosen agents.',
        [s.query('sum by (boundary) (segprobe_series_suppressed{%s})' % agent, '{{boundary}}')],
      ) + s.runbook('SegprobeSeriesSuppressed'),
    ]),

    s.row('What do they cost?', [
      s.timeseries(
        'CPU',
        'percentunit',
        8,
        8,
        'Share of one core that an agent takes: 1 % of a core is 0.01 of CPU in requests and limits.',
        spread('rate(process_cpu_seconds_total{%s}[$__rate_interval])' % agent),
      ),
      s.timeseries(
        'Memory',
        'bytes',
        8,
        8,
        'Resident memory of an agent: what the limit of its container must hold.',
        spread('process_resident_memory_bytes{%s}' % agent),
      ),
      s.timeseries(
        'File descriptors',
        'percentunit',
        8,
        8,
        'Share of its limit of file descriptors that an agent has open: each connect in flight is one.',
        spread('process_open_fds{%s} / process_max_fds{%s}' % [agent, agent]),
      ),
      s.timeseries(
        'Probes',
        'reqps',
        8,
        8,
        'TCP connects and DNS questions of all chosen agents, controls excluded: the load on your targets and servers (`pace.per_second`).',
        [s.query('sum by (check) (rate(segprobe_probes_total{%s}[$__rate_interval]))' % agent, '{{check}}')],
      ),
      s.timeseries(
        'Samples of a scrape',
        'short',
        8,
        8,
        'Series that an agent costs Prometheus (`series.every_check`, `series.worst_checks`).',
        spread('scrape_samples_scraped{%s}' % agent),
      ),
      s.timeseries(
        'Duration of scrapes',
        's',
        8,
        8,
        'Time that Prometheus takes to scrape an agent. An agent that is starved of CPU shows here first.',
        spread('scrape_duration_seconds{%s}' % agent),
      ),
      s.table(
        'Agents that cost most',
        'bytes',
        12,
        8,
        'The 20 agents with most resident memory.',
        [s.query('topk(20, max by (%s) (process_resident_memory_bytes{%s}))' % [by_node, agent])],
        node_columns + [['Value', 'memory']],
        'memory',
      ),
      s.timeseries(
        'Starts',
        'short',
        12,
        8,
        'Agents that were started, by a rollout or after a crash. An agent forgets its findings when it starts, and finds them again.',
        [s.query('count(process_start_time_seconds{%s} > time() - $__interval_ms / 1000)' % agent, 'started')],
        style='bars',
      ),
    ]),
  ],
)
