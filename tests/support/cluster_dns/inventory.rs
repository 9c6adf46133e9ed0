//! What a cluster has, as plain data: the truth from which every flavour of server answers.

use std::net::IpAddr;

use hickory_resolver::proto::rr::Name;

/// Everything that the cluster's DNS could give away.
#[derive(Clone, Debug)]
pub struct Inventory {
    /// `cluster.local.`
    pub zone: Name,
    /// All namespaces, those without any service too.
    pub namespaces: Vec<String>,
    pub services: Vec<Service>,
    pub pods: Vec<Pod>,
    /// Namespace and name of the service that fronts the DNS server: NS at the apex names it.
    pub nameserver: Option<(String, String)>,
}

#[derive(Clone, Debug)]
pub struct Service {
    pub namespace: String,
    pub name: String,
    pub kind: Kind,
    pub ports: Vec<Port>,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One address, or one of each family.
    ClusterIp(Vec<IpAddr>),
    Headless,
}

#[derive(Clone, Debug)]
pub struct Port {
    pub name: Option<String>,
    pub protocol: Protocol,
    pub number: u16,
    /// The endpoints' own.
    pub target: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Endpoint {
    pub address: IpAddr,
    /// A StatefulSet's pods have one.
    pub hostname: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Pod {
    pub namespace: String,
    pub address: IpAddr,
}

impl Service {
    /// A service with one address, or one of each family.
    pub fn cluster_ip(namespace: &str, name: &str, addresses: &[&str]) -> Self {
        Self::new(namespace, name, Kind::ClusterIp(addresses.iter().map(|a| a.parse().unwrap()).collect()))
    }

    pub fn headless(namespace: &str, name: &str) -> Self {
        Self::new(namespace, name, Kind::Headless)
    }

    fn new(namespace: &str, name: &str, kind: Kind) -> Self {
        let (ports, endpoints) = (Vec::new(), Vec::new());
        Self { namespace: namespace.into(), name: name.into(), kind, ports, endpoints }
    }

    /// A named port that is the same at the endpoints.
    pub fn port(self, name: &str, protocol: Protocol, number: u16) -> Self {
        self.port_to(name, protocol, number, number)
    }

    pub fn port_to(mut self, name: &str, protocol: Protocol, number: u16, target: u16) -> Self {
        self.ports.push(Port { name: Some(name.into()), protocol, number, target });
        self
    }

    pub fn unnamed_port(mut self, protocol: Protocol, number: u16) -> Self {
        self.ports.push(Port { name: None, protocol, number, target: number });
        self
    }

    pub fn endpoint(mut self, address: &str) -> Self {
        self.endpoints.push(Endpoint { address: address.parse().unwrap(), hostname: None });
        self
    }

    pub fn named_endpoint(mut self, hostname: &str, address: &str) -> Self {
        self.endpoints.push(Endpoint { address: address.parse().unwrap(), hostname: Some(hostname.into()) });
        self
    }
}

impl Inventory {
    /// A cluster without anything in it.
    pub fn new() -> Self {
        let zone = Name::from_ascii("cluster.local.").unwrap();
        Self { zone, namespaces: Vec::new(), services: Vec::new(), pods: Vec::new(), nameserver: None }
    }

    pub fn namespace(mut self, name: &str) -> Self {
        if self.namespaces.iter().all(|n| n != name) {
            self.namespaces.push(name.into());
        }
        self
    }

    /// Adds a service, and its namespace where that is new.
    pub fn service(self, service: Service) -> Self {
        let mut this = self.namespace(&service.namespace);
        this.services.push(service);
        this
    }

    pub fn pod(self, namespace: &str, address: &str) -> Self {
        let mut this = self.namespace(namespace);
        this.pods.push(Pod { namespace: namespace.into(), address: address.parse().unwrap() });
        this
    }

    pub fn nameserver(mut self, namespace: &str, name: &str) -> Self {
        self.nameserver = Some((namespace.into(), name.into()));
        self
    }

    /// What a server knows that serves these namespaces and no others.
    pub fn only(&self, namespaces: &[String]) -> Self {
        let mut part = self.clone();
        part.namespaces.retain(|n| namespaces.contains(n));
        part.services.retain(|s| namespaces.contains(&s.namespace));
        part.pods.retain(|p| namespaces.contains(&p.namespace));
        part.nameserver = part.nameserver.filter(|(namespace, _)| namespaces.contains(namespace));
        part
    }

    /// The cluster of `tests/data/dns.jsonl`, read back from its transfer, its wildcards and its PTR records.
    pub fn recorded() -> Self {
        use Protocol::{Tcp, Udp};
        let dns = |name, address, pod| {
            Service::cluster_ip("kube-system", name, &[address])
                .port("dns", Udp, 53)
                .port("dns-tcp", Tcp, 53)
                .port("metrics", Tcp, 9153)
                .endpoint(pod)
        };
        let kubernetes = Service::cluster_ip("default", "kubernetes", &["10.96.0.1"]).port_to("https", Tcp, 443, 6443);
        let mut cluster = Self::new()
            .service(dns("kube-dns", "10.96.0.10", "10.244.1.2"))
            .service(dns("kube-dns-old", "10.96.0.11", "10.244.2.2"))
            .service(kubernetes.endpoint("192.168.88.11"))
            // The recorded servers ran on the API server's node, so NS names its service.
            .nameserver("default", "kubernetes");
        for (namespace, web, node_port, pods) in [
            ("low", "10.96.176.67", "10.96.86.181", ["10.244.2.3", "10.244.1.3"]),
            ("high", "10.96.201.90", "10.96.250.37", ["10.244.2.4", "10.244.1.5"]),
        ] {
            let behind = |service: Service| pods.iter().fold(service, |s, pod| s.endpoint(pod));
            let web = Service::cluster_ip(namespace, "web", &[web]);
            let node_port = Service::cluster_ip(namespace, "web-np", &[node_port]);
            cluster = cluster
                .service(behind(web.port_to("http", Tcp, 80, 8080).port_to("udp", Udp, 81, 8081)))
                .service(behind(node_port.port_to("http", Tcp, 80, 8080)))
                .service(behind(Service::headless(namespace, "web-headless").port("http", Tcp, 8080)));
            cluster = pods.iter().fold(cluster, |c, pod| c.pod(namespace, pod));
        }
        // Addresses of the two `client` pods were not recorded: no service selects them. These are made up.
        cluster.pod("low", "10.244.1.4").pod("high", "10.244.2.5")
    }
}
