//! A cluster's records served by bind9, as CoreDNS would give them: one view for each client and its defence.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use tempfile::TempDir;

use super::{SOON, as_plain_user, directory, loopback, process::Process, wait_for};

/// Services of each namespace: more than an answer over UDP can tell.
pub const SERVICES: usize = 40;

const HEAD: &str = "$TTL 30
@ IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 30
@ IN NS ns.dns.cluster.local.
";

/// What everybody may know, beside the services of the agent's own namespace.
const FORWARD: &str = "ns.dns IN A 127.0.0.1
kubernetes.default.svc IN A 127.96.0.1
kubernetes.default.svc IN SRV 0 100 443 kubernetes.default.svc
any.any.svc IN SRV 0 100 443 kubernetes.default.svc
";
const REVERSE: &str = "1.0.96 IN PTR kubernetes.default.svc.cluster.local.
";

/// The protected namespace: its services, and a pod behind one of them.
const POD: &str = "127-97-0-5.payments.pod IN A 127.97.0.5
127-97-0-5.ledger-07.payments.svc IN A 127.97.0.5
";
const POD_REVERSE: &str = "5.0.97 IN PTR 127-97-0-5.ledger-07.payments.svc.cluster.local.
";

/// A response policy zone that says NXDOMAIN to the protected services, or to all of the protected namespace.
const POLICY: &str = "$TTL 30
@ IN SOA rpz. hostmaster.rpz. 1 7200 1800 86400 30
@ IN NS localhost.
payments.svc.cluster.local IN CNAME .
*.payments.svc.cluster.local IN CNAME .
";
const POLICY_FOR_PODS: &str = "payments.pod.cluster.local IN CNAME .
*.payments.pod.cluster.local IN CNAME .
";

/// Which records a zone of a view has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Records {
    All,
    WithoutPayments,
}

/// What the response policy zone of a view denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    None,
    Services,
    ServicesAndPods,
}

/// What one client may see.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub name: &'static str,
    /// The zone and the reverse zone; without them everything is refused.
    pub zones: Option<[Records; 2]>,
    /// Both may be transferred.
    pub transfer: bool,
    pub policy: Policy,
}

impl View {
    fn write(&self, at: &Path, client: Ipv4Addr) -> String {
        let Self { name, zones, transfer, policy } = *self;
        let mut view = format!("view \"{name}\" {{ match-clients {{ {client}; }}; recursion no;\n");
        if let Some([forward, reverse]) = zones {
            let who = if transfer { "any" } else { "none" };
            let zones = [("cluster.local", forward_zone(forward, client)), ("127.in-addr.arpa", reverse_zone(reverse))];
            for (zone, records) in zones {
                let file = at.join(format!("{name}.{zone}"));
                fs::write(&file, records).unwrap();
                let file = file.display();
                view += &format!("zone {zone} {{ type primary; file \"{file}\"; allow-transfer {{ {who}; }}; }};\n");
            }
        }
        if policy != Policy::None {
            let file = at.join(format!("{name}.policy"));
            let for_pods = if policy == Policy::ServicesAndPods { POLICY_FOR_PODS } else { "" };
            fs::write(&file, POLICY.to_owned() + for_pods).unwrap();
            view += &format!(
                "zone rpz {{ type primary; file \"{}\"; }};
response-policy {{ zone rpz; }} recursive-only no qname-wait-recurse no;\n",
                file.display()
            );
        }
        view + "};\n"
    }
}

fn forward_zone(records: Records, client: Ipv4Addr) -> String {
    let own_pod = format!("{}.storefront.pod IN A {client}\n", dashed(client));
    let shared = format!("{HEAD}{FORWARD}{own_pod}{}", services(|i| forward("web", i, "storefront", 2)));
    match records {
        Records::WithoutPayments => shared,
        Records::All => shared + POD + &services(|i| forward("ledger", i, "payments", 1)),
    }
}

fn reverse_zone(records: Records) -> String {
    let shared = format!("{HEAD}{REVERSE}{}", services(|i| reverse("web", i, "storefront", 2)));
    match records {
        Records::WithoutPayments => shared,
        Records::All => shared + POD_REVERSE + &services(|i| reverse("ledger", i, "payments", 1)),
    }
}

fn services(each: impl Fn(usize) -> String) -> String {
    (1..=SERVICES).map(each).collect()
}

/// A service, listed by the wildcard as well: so did CoreDNS up to 1.8.
fn forward(service: &str, i: usize, namespace: &str, net: u8) -> String {
    let name = format!("{service}-{i:02}.{namespace}.svc");
    format!("{name} IN A 127.96.{net}.{i}\n{name} IN SRV 0 100 5432 {name}\nany.any.svc IN SRV 0 100 5432 {name}\n")
}

fn reverse(service: &str, i: usize, namespace: &str, net: u8) -> String {
    format!("{i}.{net}.96 IN PTR {service}-{i:02}.{namespace}.svc.cluster.local.\n")
}

pub fn dashed(address: Ipv4Addr) -> String {
    address.to_string().replace('.', "-")
}

/// A running named.
pub struct Named {
    pub address: SocketAddr,
    /// Who gets each view.
    clients: Vec<Ipv4Addr>,
    _process: Process,
    _directory: TempDir,
}

impl Named {
    pub fn start(views: &[View]) -> Self {
        let directory = shared_directory();
        let at = directory.path();
        let clients: Vec<Ipv4Addr> = views.iter().map(|_| loopback()).collect();
        // named listens on addresses of interfaces only, of which there is one.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let written: String = views.iter().zip(&clients).map(|(view, client)| view.write(at, *client)).collect();
        let configuration = format!(
            "options {{
  directory \"{at}\"; managed-keys-directory \"{at}\"; pid-file none; session-keyfile none; lock-file none;
  listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
  recursion no; dnssec-validation no; notify no; empty-zones-enable no;
}};
controls {{ }};
{written}",
            at = at.display(),
            port = address.port(),
        );
        fs::write(at.join("named.conf"), configuration).unwrap();
        let mut command = as_plain_user(Path::new("named"));
        command.args(["-g", "-c"]).arg(at.join("named.conf"));
        let policies = views.iter().filter(|view| view.policy != Policy::None).count();
        let process = start(command, at, "named", |log| {
            let loaded = log.matches("rpz: rpz: reload done: success\n").count();
            log.contains(" running\n") && loaded == policies
        });
        Self { address, clients, _process: process, _directory: directory }
    }

    /// Who gets the views, in their order.
    pub fn clients(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.clients.iter().copied()
    }
}

/// A directory that another user can use as well, as whom programs run where the tests are run by root.
pub fn shared_directory() -> TempDir {
    let directory = directory();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    directory
}

/// Starts a server and waits until its log says that it is ready.
pub fn start(command: Command, at: &Path, name: &str, is_ready: impl Fn(&str) -> bool) -> Process {
    let mut process = Process::start(command, at, name);
    wait_for(&format!("{name} serves"), SOON, || {
        if let Some(status) = process.ended() {
            panic!("{name} ended with {status}: {}", process.stderr());
        }
        is_ready(&process.stderr()).then_some(())
    });
    process
}
