local s = import 'segprobe.libsonnet';
local v = s.variables;

local here = 'cluster=~"$cluster", node=~"$node"';
local tested = here + ', boundary=~"$boundary", server=~"$server"';
local protected = tested + ', target_namespace!=""';
// In verdicts the server is the target.
local judged = here + ', boundary=~"$boundary", target=~"$server", check=~"%s"' % s.dns_techniques;
local techniques = here + ', check=~"%s"' % s.dns_techniques;
// Queries are counted for each server, whatever the boundary.
local queries = here + ', server=~"$server"';
local check = 'cluster, instance, node, boundary, check, source_namespace, source, server';

s.dashboard(
  'segprobe-dns',
  'segprobe: DNS exposure',
  'What cluster DNS tells of the protected zone: by technique, server and namespace, how complete the answer is, and what asking costs.',
  [
    ['DNS', 'docs/dns.md', 'What a pass rests on, and what each DNS defence really hides.'],
    ['Runbooks', 'docs/runbooks', 'What to do about each alert.'],
    ['Dashboards', 'docs/dashboards.md', 'What each panel shows.'],
  ],
  [v.datasource, v.cluster, v.boundaries, v.server, v.node],
  [
    s.row('What is disclosed?', [
      s.matrix(
        'Verdicts',
        'none',
        12,
        9,
        |||
          The worst verdict of each technique (down) at each server (across) on the chosen nodes. Techniques in mode `report` or `off` have no verdict;
          what those in mode `report` found is on the right.
        |||,
        'label_replace(%s, "server", "$1", "target", "(.*)")' % s.worst_verdict('check, target', judged),
        'check',
        'server',
      ) + s.verdict_words + s.runbook('SegprobeDnsEnumeration'),
      s.matrix(
        'Names disclosed',
        'short',
        12,
        9,
        'Names of protected namespaces that a technique (down) was told by a server (across), the most that a node was told; mode `report` included.',
        'max by (check, server) (sum by (%s) (segprobe_dns_disclosed_names{%s}))' % [check, protected],
        'check',
        'server',
      ) + s.with({ thresholds: s.steps('text', [{ value: 1, color: 'red' }]) }),
      s.timeseries(
        'Names disclosed over time',
        'short',
        12,
        8,
        'The most names of protected namespaces that a node was told, by server and technique. A server that was hardened falls to 0.',
        [s.query('max by (server, check) (sum by (%s) (segprobe_dns_disclosed_names{%s}))' % [check, protected], '{{server}}: {{check}}')],
      ),
      s.table(
        'Which namespaces',
        'short',
        12,
        8,
        "Names that are disclosed of each protected namespace, the most that a node was told. The names themselves are in the log and on the agent's page.",
        [s.query('max by (cluster, target_namespace, server, check) (segprobe_dns_disclosed_names{%s}) > 0' % protected)],
        [
          ['cluster', 'cluster'],
          ['target_namespace', 'namespace'],
          ['server', 'server'],
          ['check', 'check'],
          ['Value', 'names'],
        ],
        'names',
      ) + s.with({}, [
        s.by_name('names', { thresholds: s.steps('text', [{ value: 1, color: 'red' }]) }),
        s.linked('server', [s.links.server]),
      ]),
    ]),

    s.row('Which node?', [
      s.table(
        'Nodes that are told',
        'short',
        12,
        9,
        'Which node is told how many names of protected namespaces, the 100 with most. Some nodes only: their caches or node-local servers differ.',
        [s.query(
          'topk(100, max by (cluster, node, boundary, server, check) (sum by (%s) (segprobe_dns_disclosed_names{%s})) > 0)' % [check, protected]
        )],
        [
          ['cluster', 'cluster'],
          ['node', 'node'],
          ['boundary', 'boundary'],
          ['server', 'server'],
          ['check', 'check'],
          ['Value', 'names'],
        ],
        'names',
      ) + s.with({}, [
        s.linked('node', [s.links.node_of_boundary, s.links.node]),
        s.by_name('names', { thresholds: s.steps('text', [{ value: 1, color: 'red' }]) }),
      ]),
      s.timeseries(
        'Names of others',
        'short',
        12,
        9,
        'Names that are not protected and were told: the techniques work. At 0 a technique that finds nothing proves nothing (`no-self-check`).',
        [s.query('max by (server, check) (segprobe_dns_disclosed_names{%s, target_namespace=""})' % tested, '{{server}}: {{check}}')],
      ),
    ]),

    s.row('How complete is it?', [
      s.bars(
        'Round under way',
        'percentunit',
        8,
        9,
        'How much of its questions the slowest node has asked in the round under way. Long lists are asked in slices, sweep by sweep.',
        [s.now('min by (server, check) (segprobe_dns_sweep_progress_ratio{%s})' % tested, '{{server}}: {{check}}')],
      ) + s.with({ min: 0, max: 1, thresholds: s.steps('blue', [{ value: 1, color: 'green' }]) }),
      s.table(
        'Since all was asked',
        's',
        8,
        9,
        'Time since all questions of a technique were last asked without losing any, of the node where it is longest. Not listed: never yet.',
        [s.query('max by (cluster, server, check) (time() - segprobe_dns_last_full_coverage_timestamp_seconds{%s})' % tested)],
        [['cluster', 'cluster'], ['server', 'server'], ['check', 'check'], ['Value', 'age']],
        'age',
      ),
      s.timeseries(
        'Lost queries',
        'percentunit',
        8,
        9,
        'Share of the queries on the wire without an answer, repeats and controls included. Loss makes a technique inconclusive (`lost-queries`).',
        [s.query(
          |||
            sum by (server) (rate(segprobe_dns_queries_total{%s, outcome="lost"}[$__rate_interval]))
            / sum by (server) (rate(segprobe_dns_queries_total{%s}[$__rate_interval]))
          ||| % [queries, queries], '{{server}}'
        )],
      ) + s.with({ max: 1 }),
    ]),

    s.row('What it costs the servers', [
      s.timeseries(
        'Queries',
        'reqps',
        12,
        8,
        'Queries that all chosen nodes send to a server, repeats and controls included: the load that segprobe is to your DNS (`dns.queries_per_second`).',
        [s.query('sum by (server, transport) (rate(segprobe_dns_queries_total{%s}[$__rate_interval]))' % queries, '{{server}} over {{transport}}')],
      ),
      s.timeseries(
        'Answers',
        'reqps',
        12,
        8,
        'Answers to the questions of the techniques, by technique and class, of all servers and without controls.',
        [s.query('sum by (check, outcome) (rate(segprobe_probes_total{%s}[$__rate_interval])) > 0' % techniques, '{{check}}: {{outcome}}')],
      ),
    ]),
  ],
  [s.findings_annotation('cluster=~"$cluster", boundary=~"$boundary", check=~"%s"' % s.dns_techniques)],
)
