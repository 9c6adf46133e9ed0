// What all dashboards share: variables, the words and colours of verdicts, panels, and their places.
//
// Colours are names of Grafana's palette, which has a light and a dark shade of each, and stand beside a word: who cannot tell
// them apart reads the same.

local docs = 'https://github.com/segprobe/segprobe/blob/main/';
local datasource = { type: 'prometheus', uid: '${datasource}' };
local dns_techniques = 'srv-wildcard|reverse-sweep|zone-transfer|service-lookup|namespace-oracle|pod-oracle';

// A state as a number, the worst is the highest.
local states = [
  { value: 5, verdict: 'fail', color: 'red', dash: [] },
  { value: 4, verdict: 'inconclusive', color: 'orange', dash: [10, 5] },
  { value: 3, verdict: 'nothing tested', color: 'purple', dash: [] },
  { value: 2, verdict: 'unverified', color: 'blue', dash: [4, 4] },
  { value: 1, verdict: 'pass', color: 'green', dash: [1, 6] },
];
local verdicts = [state for state in states if state.value != 3];

local value_mapping(texts) = [{
  type: 'value',
  options: {
    [std.toString(state.value)]: { text: texts[state.verdict], color: state.color, index: 5 - state.value }
    for state in states
    if std.objectHas(texts, state.verdict)
  },
}];

local steps(base, more=[]) = { mode: 'absolute', steps: [{ value: null, color: base }] + more };

local query(expr, legend='', instant=false) = {
  expr: std.rstripChars(expr, '\n'),
  legend: legend,
  instant: instant,
};

local target(query, index, format) = {
  refId: std.char(65 + index),
  datasource: datasource,
  editorMode: 'code',
  expr: query.expr,
  legendFormat: if query.legend == '' then '__auto' else query.legend,
  instant: query.instant,
  range: !query.instant,
  format: format,
};

// `says` is the description: what it shows, and what to do about it.
local panel(type, title, unit, w, h, says, queries, format='time_series') = {
  type: type,
  title: title,
  description: says,
  datasource: datasource,
  targets: std.mapWithIndex(function(i, q) target(q, i, format), queries),
  // A query over time keeps nodes × series × points samples at once; Prometheus' default limit is 50 million.
  maxDataPoints: 100,
  gridPos: { w: w, h: h },
  fieldConfig: { defaults: { unit: unit, noValue: '–', mappings: [], thresholds: steps('text') }, overrides: [] },
};

local by_name(name, properties) = {
  matcher: { id: 'byName', options: name },
  properties: [{ id: id, value: properties[id] } for id in std.objectFields(properties)],
};

local with(defaults={}, overrides=[]) = {
  fieldConfig+: { defaults+: defaults, overrides+: overrides },
};

// Another dashboard, with what is known of the row: `{boundary: 'boundary'}` hands its column on as that variable.
local link(title, uid, fields) = {
  title: title,
  url: '/d/' + uid + '?' + std.join('&', ['${datasource:queryparam}', '${cluster:queryparam}', '${__url_time_range}'] + [
    'var-' + variable + '=${__data.fields.' + fields[variable] + '}'
    for variable in std.objectFields(fields)
  ]),
  targetBlank: false,
};
local links = {
  boundary: link('Open the boundary', 'segprobe-boundary', { boundary: 'boundary' }),
  node_of_boundary: link('Open the boundary on this node', 'segprobe-boundary', { boundary: 'boundary', node: 'node' }),
  node: link('Open the agent of this node', 'segprobe-agents', { node: 'node' }),
  server: link('Open this server', 'segprobe-dns', { server: 'server' }),
};

local linked(name, links) = by_name(name, { links: links });

{
  docs:: docs,
  query:: query,
  now(expr, legend=''):: query(expr, legend, instant=true),
  verdicts:: verdicts,
  steps:: steps,
  by_name:: by_name,
  with:: with,
  links:: links,
  linked:: linked,
  dns_techniques:: dns_techniques,

  // The worst state of each group: exactly one number, as each line leaves out the groups that are in one above it.
  worst_state(by, selector)::
    local checks(verdict) = 'sum by (%s) (segprobe_boundary_checks{%s, verdict="%s"})' % [by, selector, verdict];
    std.join('\nor ', ['(%s > 0) * 0 + %d' % [checks(state.verdict), state.value] for state in verdicts] + [
      'sum by (%s) (segprobe_boundary_checks{%s}) * 0 + 3' % [by, selector],
    ]),
  // The same of single checks, which have a series for each verdict.
  worst_verdict(by, selector)::
    'max by (%s) (\n  %s\n)' % [by, std.join('\n  or ', [
      'segprobe_check_verdict{%s, verdict="%s"} * %d' % [selector, state.verdict, state.value]
      for state in verdicts
    ])],
  // A label made of two, for the sides of a matrix.
  joined(label, labels, expr)::
    'label_join(\n%s,\n"%s", "/", %s)' % [expr, label, std.join(', ', ['"%s"' % l for l in labels])],

  state_words:: with({
    mappings: value_mapping({
      fail: 'BREACHED',
      inconclusive: 'NOT KNOWN',
      'nothing tested': 'NOTHING TESTED',
      unverified: 'NOT PROVEN',
      pass: 'PROVEN',
    }),
    noValue: 'NO DATA',
  }),
  outage_words:: with({
    mappings: value_mapping({
      fail: 'OUTAGE',
      inconclusive: 'NOT KNOWN',
      'nothing tested': 'NOTHING TESTED',
      unverified: 'NOT PROVEN',
      pass: 'REACHABLE',
    }),
    noValue: 'none is configured',
  }),
  verdict_words:: with({
    mappings: value_mapping({
      fail: 'FAIL',
      inconclusive: 'inconclusive',
      'nothing tested': 'nothing tested',
      unverified: 'unverified',
      pass: 'pass',
    }),
  }),
  // Colours and line styles of what is called by a verdict.
  verdict_lines:: with({}, [
    by_name(state.verdict, {
      color: { mode: 'fixed', fixedColor: state.color },
      'custom.lineStyle': if state.dash == [] then { fill: 'solid' } else { fill: 'dash', dash: state.dash },
    })
    for state in verdicts
  ]),
  // Numbers in columns, or stats, that are called by a verdict: plain at 0.
  verdict_columns:: with({}, [
    by_name(state.verdict, {
      thresholds: steps('text', [{ value: 1, color: state.color }]),
      color: { mode: 'thresholds' },
    })
    for state in verdicts
  ]),
  // What to do when the panel is not as it should be.
  runbook(alert):: {
    links+: [{ title: 'Runbook: ' + alert, url: docs + 'docs/runbooks/' + alert + '.md', targetBlank: true }],
  },
  bad_above_zero:: with({ thresholds: steps('green', [{ value: 0.000001, color: 'red' }]) }),

  // One query for each verdict, each called by it.
  by_verdict(expr, instant=false):: [query(expr % state.verdict, state.verdict, instant) for state in verdicts],

  // Big numbers. Colours are those of the text.
  stat(title, unit, w, h, says, queries)::
    panel('stat', title, unit, w, h, says, queries) {
      options: {
        colorMode: 'value',
        graphMode: 'none',
        justifyMode: 'auto',
        textMode: 'auto',
        orientation: 'auto',
        wideLayout: true,
        showPercentChange: false,
        percentChangeColorMode: 'standard',
        reduceOptions: { values: false, calcs: ['lastNotNull'], fields: '' },
      },
    } + with({ color: { mode: 'thresholds' } }),

  // Says what a number is of, where there is one alone, too.
  named:: { options+: { textMode: 'value_and_name' } },

  bars(title, unit, w, h, says, queries)::
    panel('bargauge', title, unit, w, h, says, queries) {
      options: {
        displayMode: 'basic',
        orientation: 'horizontal',
        valueMode: 'color',
        namePlacement: 'auto',
        showUnfilled: true,
        sizing: 'auto',
        minVizWidth: 8,
        minVizHeight: 16,
        maxVizHeight: 300,
        legend: { showLegend: false, displayMode: 'list', placement: 'bottom', calcs: [] },
        reduceOptions: { values: false, calcs: ['lastNotNull'], fields: '' },
      },
    } + with({ color: { mode: 'thresholds' } }),

  timeseries(title, unit, w, h, says, queries, stacked=false, style='line')::
    panel('timeseries', title, unit, w, h, says, queries) {
      options: {
        legend: { showLegend: true, displayMode: 'table', placement: 'bottom', calcs: ['lastNotNull', 'max'] },
        tooltip: { mode: 'multi', sort: 'desc' },
      },
    } + with({
      min: 0,
      color: { mode: 'palette-classic' },
      custom: {
        drawStyle: style,
        lineWidth: 2,
        fillOpacity: if stacked || style == 'bars' then 30 else 0,
        showPoints: 'auto',
        spanNulls: false,
        stacking: { mode: if stacked then 'normal' else 'none', group: 'A' },
      },
    }),

  // `columns`: what is shown, in order, as `[field, name]`. The rest is hidden. `sort`: a name.
  table(title, unit, w, h, says, queries, columns, sort='', descending=true)::
    panel('table', title, unit, w, h, says, [q { instant: true } for q in queries], 'table') {
      options: {
        frameIndex: 0,
        showHeader: true,
        cellHeight: 'sm',
        sortBy: if sort == '' then [] else [{ displayName: sort, desc: descending }],
      },
      transformations: [
        { id: 'merge', options: {} },
        {
          id: 'organize',
          options: {
            excludeByName: { Time: true },
            includeByName: {},
            indexByName: { [columns[i][0]]: i for i in std.range(0, std.length(columns) - 1) },
            renameByName: { [column[0]]: column[1] for column in columns if column[0] != column[1] },
          },
        },
      ],
    } + with({ custom: { cellOptions: { type: 'color-text' }, filterable: true } }),

  // Columns that a query has beside those of the table.
  hide(names):: {
    transformations: [
      if t.id == 'organize' then t { options+: { excludeByName+: { [name]: true for name in names } } } else t
      for t in super.transformations
    ],
  },

  // One label down, another one across. The corner says which.
  matrix(title, unit, w, h, says, expr, row, column)::
    panel('table', title, unit, w, h, says, [query(expr, instant=true)], 'table') {
      options: { frameIndex: 0, showHeader: true, cellHeight: 'sm', sortBy: [] },
      transformations: [{
        id: 'groupingToMatrix',
        options: { rowField: row, columnField: column, valueField: 'Value', emptyValue: 'null' },
      }],
    } + with({ custom: { cellOptions: { type: 'color-text' }, filterable: true } }),

  row(title, panels):: { title: title, panels: panels },

  variables:: {
    datasource: {
      type: 'datasource',
      name: 'datasource',
      label: 'Data source',
      description: 'The Prometheus that scrapes the agents.',
      query: 'prometheus',
      refresh: 1,
    },
    // `all` is what "All" means: a matcher that also takes series without the label, or each value.
    query(name, label, metric, says, all=null, multi=true):: {
      type: 'query',
      name: name,
      label: label,
      description: says,
      datasource: datasource,
      query: { query: 'label_values(%s, %s)' % [metric, name], refId: name },
      definition: 'label_values(%s, %s)' % [metric, name],
      refresh: 2,
      sort: 1,
      multi: multi,
      includeAll: multi,
      [if multi then 'current']: { text: ['All'], value: ['$__all'] },
      [if all != null then 'allValue']: all,
    },
    cluster: self.query('cluster', 'Cluster', 'segprobe_build_info', 'The label `cluster`, where series have one.', '.*'),
    job: self.query(
      'job', 'Job', 'segprobe_build_info{cluster=~"$cluster"}', 'The scrape jobs of the agents: for `up` and `process_*`.'
    ),
    node: self.query(
      'node', 'Node', 'segprobe_boundary_info{cluster=~"$cluster"}', 'The nodes whose agents are looked at.', '.*'
    ),
    boundaries: self.query(
      'boundary', 'Boundary', 'segprobe_boundary_info{cluster=~"$cluster"}', 'The boundaries, as configurations name them.', '.*'
    ),
    boundary: self.query(
      'boundary', 'Boundary', 'segprobe_boundary_info{cluster=~"$cluster"}', 'The boundary that is looked at.', multi=false
    ),
    server: self.query(
      'server', 'DNS server', 'segprobe_dns_disclosed_names{cluster=~"$cluster"}', 'The DNS servers that are tested.', '.*'
    ),
  },

  // Rows are laid out from left to right and from top to bottom; ids are counted.
  dashboard(uid, title, says, documents, variables, rows, annotations=[])::
    local place(state, panel) =
      local wraps = state.x + panel.gridPos.w > 24;
      local x = if wraps then 0 else state.x;
      local y = if wraps then state.y + state.h else state.y;
      {
        x: x + panel.gridPos.w,
        y: y,
        h: if wraps then panel.gridPos.h else std.max(state.h, panel.gridPos.h),
        id: state.id + 1,
        panels: state.panels + [panel { id: state.id, gridPos+: { x: x, y: y } }],
      };
    local place_row(state, row) =
      local header = {
        type: 'row',
        id: state.id,
        title: row.title,
        collapsed: false,
        panels: [],
        gridPos: { x: 0, y: state.y, w: 24, h: 1 },
      };
      local end = std.foldl(
        place, row.panels, { x: 0, y: state.y + 1, h: 0, id: state.id + 1, panels: state.panels + [header] }
      );
      { y: end.y + end.h, id: end.id, panels: end.panels };
    {
      uid: uid,
      title: title,
      description: says,
      tags: ['segprobe'],
      schemaVersion: 42,
      version: 1,
      editable: true,
      graphTooltip: 1,
      timezone: 'browser',
      time: { from: 'now-6h', to: 'now' },
      refresh: '1m',
      links: [
        {
          type: 'dashboards',
          title: 'segprobe',
          tags: ['segprobe'],
          asDropdown: false,
          includeVars: true,
          keepTime: true,
          targetBlank: false,
          icon: 'external link',
          tooltip: '',
        },
      ] + [
        {
          type: 'link',
          title: document[0],
          url: docs + document[1],
          icon: 'doc',
          tooltip: document[2],
          tags: [],
          asDropdown: false,
          includeVars: false,
          keepTime: false,
          targetBlank: true,
        }
        for document in documents
      ],
      templating: { list: variables },
      annotations: {
        list: annotations,
      },
      panels: std.foldl(place_row, rows, { y: 0, id: 1, panels: [] }).panels,
    },

  // When each finding was opened: also one that was over before the next scrape, as the value is the time.
  findings_annotation(selector):: {
    name: 'Findings',
    datasource: datasource,
    enable: true,
    hide: false,
    iconColor: 'red',
    expr: 'max by (cluster, boundary, check) (segprobe_last_finding_timestamp_seconds{%s}) * 1000' % selector,
    useValueForTime: true,
    titleFormat: 'Finding',
    textFormat: '{{boundary}}: {{check}}',
    tagKeys: 'boundary,check',
    step: '60s',
  },
}
