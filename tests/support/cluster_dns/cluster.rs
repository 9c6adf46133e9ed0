//! An inventory with indexes, and the names of its objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use hickory_resolver::proto::rr::Name;

use super::{
    inventory::{Endpoint, Inventory, Kind, Service},
    kube_dns::Tree,
    told::Fact,
};

/// An inventory that answers quickly.
pub struct Cluster {
    pub inventory: Inventory,
    /// `cluster.local.`, for names.
    zone: String,
    namespaces: BTreeSet<String>,
    by_name: BTreeMap<(String, String), usize>,
    by_cluster_ip: BTreeMap<IpAddr, usize>,
    by_endpoint: BTreeMap<IpAddr, Vec<(usize, usize)>>,
    pods: BTreeSet<(IpAddr, String)>,
    /// kube-dns' records.
    pub tree: Tree,
}

impl Cluster {
    pub fn new(inventory: Inventory) -> Self {
        let (mut by_name, mut by_cluster_ip) = (BTreeMap::new(), BTreeMap::new());
        let mut by_endpoint: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (index, service) in inventory.services.iter().enumerate() {
            by_name.insert((service.namespace.clone(), service.name.clone()), index);
            if let Kind::ClusterIp(addresses) = &service.kind {
                by_cluster_ip.extend(addresses.iter().map(|a| (*a, index)));
            }
            for (number, endpoint) in service.endpoints.iter().enumerate() {
                by_endpoint.entry(endpoint.address).or_default().push((index, number));
            }
        }
        Self {
            zone: inventory.zone.to_ascii().to_ascii_lowercase(),
            namespaces: inventory.namespaces.iter().cloned().collect(),
            tree: Tree::new(&inventory.services),
            pods: inventory.pods.iter().map(|p| (p.address, p.namespace.clone())).collect(),
            by_name,
            by_cluster_ip,
            by_endpoint,
            inventory,
        }
    }

    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.contains(namespace)
    }

    pub fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        let index = self.by_name.get(&(namespace.to_owned(), name.to_owned()))?;
        Some(&self.inventory.services[*index])
    }

    pub fn with_cluster_ip(&self, address: IpAddr) -> Option<&Service> {
        Some(&self.inventory.services[*self.by_cluster_ip.get(&address)?])
    }

    pub fn with_endpoint(&self, address: IpAddr) -> impl Iterator<Item = (&Service, &Endpoint)> {
        self.by_endpoint.get(&address).into_iter().flatten().map(|&(index, number)| {
            let service = &self.inventory.services[index];
            (service, &service.endpoints[number])
        })
    }

    /// Namespaces in which a pod has this address.
    pub fn pod_namespaces(&self, address: IpAddr) -> impl Iterator<Item = &str> {
        self.pods.range((address, String::new())..).take_while(move |pod| pod.0 == address).map(|pod| pod.1.as_str())
    }

    pub fn nameserver(&self) -> Option<&Service> {
        let (namespace, name) = self.inventory.nameserver.as_ref()?;
        self.service(namespace, name)
    }

    /// The absolute name of labels before the zone.
    pub fn name(&self, labels: &str) -> Name {
        Name::from_ascii(format!("{labels}.{}", self.zone)).unwrap()
    }

    /// The fact that something of `namespace` is called so: labels before the zone.
    pub fn fact(&self, namespace: &str, labels: &str) -> Fact {
        Fact::Name { namespace: namespace.into(), name: format!("{labels}.{}", self.zone) }
    }
}

impl Service {
    /// Labels before the zone.
    pub fn labels(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }
}
