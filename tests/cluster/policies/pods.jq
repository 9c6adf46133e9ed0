# The pods under test. Input: `kubectl get pods` of each namespace.
[.[].items[]
  | {id: "\(.metadata.namespace)/\(.metadata.name)", namespace: .metadata.namespace,
     name: .metadata.name, node: .spec.nodeName, addresses: [.status.podIPs[].ip]}]
