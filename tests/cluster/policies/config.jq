# The configuration of segprobe, from the list of pods: one zone, from every pod to every pod.
# DNS is not tested; the pods' DNS servers are the positive controls.
{
  vantage: {mode: "pods"},
  zones: {pods: {namespaces: (map(.namespace) | unique)}},
  boundaries: [{name: "pods", from: "pods", to: "pods", dns: "off", tcp: {attempts: 1}}],
  targets: map({zone: "pods", namespace, service: .name, endpoints: .addresses, ports: [80, 81]}),
  controls: {positive: [{tcp: "resolver"}]},
  pods: {per_second: 1000},
  pace: {per_second: 1000}
}
