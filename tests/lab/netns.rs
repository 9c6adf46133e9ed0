//! Namespaces of other pods: sockets that are born in them, who listens in them, and what is left of a visit.

use std::{
    collections::BTreeSet,
    env,
    fs::{self, File},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::{Failed, Trial};
use nix::{
    sched::{CloneFlags, unshare},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        stat::fstat,
    },
};
use rustix::thread::{CapabilitySets, capabilities, set_capabilities};
use segprobe::{
    model::{Family, Transport},
    observation::TcpOutcome,
    probe::{Reach, reach},
    vantage::{
        EnterError, InPod, Listeners, Netns, NetnsId, Own, Vantage,
        privileges::{CapabilitySet, drop_all_but, has_sys_admin},
    },
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    network::{Hook, Namespace, Network, fill},
    servers::{Servers, Temper},
};

pub fn trials() -> Vec<Trial> {
    let trial = |name: &str, test: fn() -> Result<(), Failed>| Trial::test(format!("netns::{name}"), test);
    vec![
        trial("sockets-are-in-the-namespace", sockets_are_in_the_namespace),
        trial("silent-sockets-are-used-again", silent_sockets),
        trial("a-namespace-that-goes-is-noticed", gone),
        trial("a-namespace-that-is-replaced-is-noticed", replaced),
        trial("what-cannot-be-entered-says-why", refused),
        trial("a-panic-inside-stays-inside", panics),
        trial("listeners-are-told-without-a-packet", listeners),
        trial("listeners-beside-many", many_listeners),
        trial("a-listener-that-is-replaced-is-noticed", replaced_listener),
        trial("nothing-is-left-of-1000-sweeps", nothing_is_left),
        trial("privileges-and-limits", || in_a_child("privileges")),
    ]
}

fn open(namespace: &Namespace) -> Result<Netns, Failed> {
    Ok(Netns::open(Path::new(&namespace.path()))?)
}

fn address(name: &str, family: Family, port: u16) -> SocketAddr {
    SocketAddr::new(fill(name, family).parse().expect("an address"), port)
}

const HOW: Reach = Reach { timeout: Duration::from_secs(5), icmp_evidence: true };

/// A server that only the client's namespace has a way to is reached from there, and from nowhere else.
fn sockets_are_in_the_namespace() -> Result<(), Failed> {
    let network = Network::new()?;
    let open_at = |family| (address("$target", family, 80), Temper::Open);
    let listeners = Family::ALL.iter().map(|family| open_at(*family)).collect();
    let dns = (address("$server", Family::V4, 53), Default::default());
    let _servers = Servers::start(&network.server, listeners, Some(dns.clone()));
    let pod = InPod::new(open(&network.client)?)?;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        for family in Family::ALL {
            let (there, closed) = (address("$target", *family, 80), address("$target", *family, 81));
            // More than one batch of sockets.
            for _ in 0..100 {
                let seen = reach(Transport::Tcp, &pod, &there, &HOW).await;
                assert_eq!(seen.outcome, TcpOutcome::Open, "{there}: {seen:?}");
            }
            let seen = reach(Transport::Tcp, &pod, &closed, &HOW).await;
            assert_eq!(seen.outcome, TcpOutcome::Closed, "{closed}: {seen:?}");
            let seen = reach(Transport::Tcp, &Own::new(), &there, &HOW).await;
            assert_eq!(seen.outcome, TcpOutcome::Unreachable, "{there} from here: {seen:?}");
            // ICMP detail is heard: the router knows that nobody has this address.
            let nobody = address("$nobody", *family, 80);
            let seen = reach(Transport::Tcp, &pod, &nobody, &HOW).await;
            assert!(seen.icmp.is_some() && seen.elapsed_us < 900_000, "{nobody}: {seen:?}");
        }
        let seen = reach(Transport::Udp, &pod, &dns.0, &HOW).await;
        assert_eq!(seen.outcome, TcpOutcome::Open, "{seen:?}");
        let seen = reach(Transport::Udp, &pod, &address("$target", Family::V4, 53), &HOW).await;
        assert_eq!(seen.outcome, TcpOutcome::Refused, "nobody listens: {seen:?}");
    });
    for family in Family::ALL {
        let udp = pod.udp(address("$server", *family, 53))?;
        let local = udp.local_addr()?.as_socket().expect("an address");
        assert_eq!(local.ip(), fill("$client", *family).parse::<IpAddr>()?);
        assert!(pod.has(*family));
    }
    let lonely = InPod::new(open(&Namespace::new()?)?)?;
    assert!(Family::ALL.iter().all(|family| !lonely.has(*family)), "it has no interface");
    Ok(())
}

/// A socket that heard nothing makes the next connect, which tells what a new one would; one that heard something is closed.
fn silent_sockets() -> Result<(), Failed> {
    let network = Network::new()?;
    let peer = |name, family| address(name, family, 80);
    let listeners = Family::ALL.iter().map(|family| (peer("$target", *family), Temper::Open)).collect();
    let _servers = Servers::start(&network.server, listeners, None);
    let silence = |family: &Family| fill("$ip daddr $second tcp dport 80 drop", *family);
    network.server.rules(Hook::Input, &Family::ALL.iter().map(silence).collect::<Vec<_>>())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let pod = InPod::new(open(&network.client)?)?;
    let inode = |socket: &Socket| fstat(socket).expect("it is open").st_ino;
    let connecting = |to: SocketAddr| {
        let socket = pod.tcp(to).expect("a socket");
        // It goes on after the call, or is over.
        let _ = socket.connect(&to.into());
        socket
    };
    let outcome = |to: SocketAddr| {
        let how = Reach { timeout: Duration::from_millis(300), ..HOW };
        runtime.block_on(reach(Transport::Tcp, &pod, &to, &how)).outcome
    };
    for family in Family::ALL.iter().copied() {
        for (next, expected) in [
            (peer("$target", family), TcpOutcome::Open),
            (address("$target", family, 81), TcpOutcome::Closed),
            (peer("$second", family), TcpOutcome::Filtered),
            (peer("$nobody", family), TcpOutcome::Unreachable),
        ] {
            let silent = connecting(peer("$second", family));
            let first = inode(&silent);
            pod.take_back(silent, peer("$second", family));
            let again = pod.tcp(next)?;
            assert_eq!(inode(&again), first, "{next}");
            let connected = again.connect(&next.into()).err().and_then(|error| error.raw_os_error());
            assert_ne!(connected, Some(nix::libc::EALREADY), "{next}: the last connect goes on");
            pod.take_back(again, next);
            assert_eq!(outcome(next), expected, "{next}");
        }

        let rejected = connecting(peer("$nobody", family));
        let first = inode(&rejected);
        until("no ICMP error came", || rejected.take_error().is_ok_and(|error| error.is_some()));
        pod.take_back(rejected, peer("$nobody", family));
        let kept: Vec<Socket> = (0..200).map(|_| pod.tcp(peer("$second", family)).expect("a socket")).collect();
        assert!(kept.iter().all(|socket| inode(socket) != first), "{family}");
        // What many take back is not kept without end.
        let before: BTreeSet<u64> = kept.iter().map(inode).collect();
        kept.into_iter().for_each(|socket| pod.take_back(socket, peer("$second", family)));
        let taken: Vec<Socket> = (0..200).map(|_| pod.tcp(peer("$second", family)).expect("a socket")).collect();
        let again = taken.iter().filter(|socket| before.contains(&inode(socket))).count();
        assert!((100..=128).contains(&again), "{family}: {again}");
        assert_eq!(outcome(peer("$second", family)), TcpOutcome::Filtered);
    }
    Ok(())
}

/// The process whose namespace it was has ended; what is open stays usable.
fn gone() -> Result<(), Failed> {
    let mut holder = Command::new("unshare").args(["--net", "sleep", "60"]).stdin(Stdio::null()).spawn()?;
    let path = PathBuf::from(format!("/proc/{}/ns/net", holder.id()));
    let own = Netns::own()?;
    let entered = Instant::now() + Duration::from_secs(20);
    let netns = loop {
        let netns = Netns::open(&path)?;
        if netns.id() != own {
            break netns;
        }
        assert!(Instant::now() < entered, "unshare made no namespace");
        thread::sleep(Duration::from_millis(5));
    };
    let was_there = netns.is_there();
    holder.kill()?;
    holder.wait()?;
    assert_eq!((was_there, netns.is_there()), (true, false));
    assert!(matches!(Netns::open(&path), Err(EnterError::Gone { .. })));
    assert_eq!(netns.visit(here)??, netns.id());
    Ok(())
}

/// The namespace of the calling thread.
fn here() -> std::io::Result<NetnsId> {
    let file = fs::metadata("/proc/thread-self/ns/net")?;
    Ok(NetnsId { device: file.dev(), inode: file.ino() })
}

/// As a container runtime mounts namespaces and takes them away (containerd and CRI-O: MNT_DETACH, with no regard to who
/// has them open), in a mount namespace of the test's own.
fn replaced() -> Result<(), Failed> {
    let (first, second) = (Namespace::new()?, Namespace::new()?);
    let mounted = || -> Result<(), Failed> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("cni-1");
        fs::write(&path, "")?;
        let mount = |arguments: &[&str]| -> Result<(), Failed> {
            let status = Command::new(arguments[0]).args(&arguments[1..]).status()?;
            if status.success() { Ok(()) } else { Err(format!("{arguments:?}: {status}").into()) }
        };
        mount(&["mount", "--make-rprivate", "/"])?;
        let at = path.to_str().expect("text");
        assert!(matches!(Netns::open(&path), Err(EnterError::NoNamespace { .. })), "before it is mounted");

        mount(&["mount", "--bind", &first.path(), at])?;
        let netns = Netns::open(&path)?;
        assert!(netns.is_there());
        assert_eq!(netns.id(), open(&first)?.id());
        assert_ne!(netns.id(), open(&second)?.id());
        mount(&["umount", "--lazy", at])?;
        assert!(!netns.is_there(), "unmounted: an ordinary file is left");
        mount(&["mount", "--bind", &second.path(), at])?;
        assert!(!netns.is_there(), "another namespace at the same path");
        assert_eq!(netns.visit(here)??, open(&first)?.id());
        assert_eq!(Netns::open(&path)?.visit(here)??, open(&second)?.id());
        mount(&["umount", "--lazy", at])?;
        fs::remove_file(&path)?;
        assert!(!netns.is_there(), "removed");
        Ok(())
    };
    thread::scope(|scope| scope.spawn(mounted).join()).expect("no panic")
}

/// Each obstacle has an error of its own.
fn refused() -> Result<(), Failed> {
    let other = Netns::open(Path::new("/proc/self/ns/mnt"))?;
    assert!(matches!(other.visit(|| ()), Err(EnterError::OtherKind { .. })));
    let namespace = Namespace::new()?;
    let netns = open(&namespace)?;
    let powerless = || {
        let none = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
        Ok::<_, rustix::io::Errno>((netns.visit(|| ()), InPod::new(open(&namespace).expect("opening needs nothing"))))
    };
    let (visit, pod) = thread::scope(|scope| scope.spawn(powerless).join()).expect("no panic")?;
    assert!(matches!(visit, Err(EnterError::NotPermitted { .. })), "{visit:?}");
    assert!(matches!(pod, Err(EnterError::NotPermitted { .. })), "{pod:?}");
    Ok(())
}

fn panics() -> Result<(), Failed> {
    let namespace = Namespace::new()?;
    let pod = InPod::new(open(&namespace)?)?;
    let before = here()?;
    let panicked = pod.netns().visit(|| panic!("on purpose, inside a visit"));
    assert!(matches!(panicked, Err(EnterError::Panicked { .. })));
    assert_eq!(here()?, before);
    assert_eq!(pod.netns().visit(here)??, pod.netns().id());
    pod.tcp(([192, 0, 2, 1], 80).into())?;
    Ok(())
}

fn bound(address: SocketAddr, prepare: impl FnOnce(&Socket)) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    prepare(&socket);
    socket.bind(&address.into()).unwrap_or_else(|e| panic!("bind {address}: {e}"));
    socket.listen(16).expect("listen");
    socket
}

/// What is told of each kind of listener is what a connect then sees.
fn listeners() -> Result<(), Failed> {
    let network = Network::new()?;
    let v6_only = |on: bool| move |socket: &Socket| socket.set_only_v6(on).expect("IPV6_V6ONLY");
    let as_is = |_: &Socket| ();
    let at = |text: &str, port: u16| SocketAddr::new(fill(text, Family::V6).parse().expect("an address"), port);
    let (told, is_ready) = mpsc::channel();
    let (stop, stopped) = mpsc::channel::<()>();
    let server = network.server.spawn(move || {
        let sockets = [
            bound(([127, 0, 0, 1], 1001).into(), as_is),
            bound(([0, 0, 0, 0], 1002).into(), as_is),
            bound(at("$other_target", 1003), as_is),
            bound(at("::", 1004), v6_only(false)),
            bound(at("::", 1005), v6_only(true)),
            bound(at("::ffff:198.51.100.10", 1006), v6_only(false)),
            bound(at("::ffff:0.0.0.0", 1007), v6_only(false)),
            bound(at("$target", 1008), v6_only(false)),
            bound(at("::1", 1009), v6_only(false)),
            bound(([0, 0, 0, 0], 1010).into(), |socket| socket.bind_device(Some(b"lo")).expect("SO_BINDTODEVICE")),
            bound(([0, 0, 0, 0], 1011).into(), as_is),
            // Go listens so where it may; kernels without it are served by an ordinary socket.
            multipath(([0, 0, 0, 0], 1012).into()),
        ];
        // Bound, and does not listen.
        let quiet = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        quiet.bind(&SocketAddr::from(([0, 0, 0, 0], 1013)).into()).expect("bind");
        // Nobody accepts, and its queue is full.
        sockets[10].listen(0).expect("a short queue");
        let waiting: Vec<Socket> = (0..3)
            .map(|_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).expect("a socket");
                let _ = socket.connect(&SocketAddr::from(([127, 0, 0, 1], 1011)).into());
                socket
            })
            .collect();
        told.send(()).expect("somebody waits for it");
        let _ = stopped.recv();
        drop((sockets, quiet, waiting));
    });
    is_ready.recv()?;

    let netns = open(&network.server)?;
    let found = Listeners::of(&netns)?;
    let mut seen = BTreeSet::new();
    for port in 1001..=1014 {
        for ip in [at("$target", 0).ip(), at("$other_target", 0).ip()] {
            let address = SocketAddr::new(ip, port);
            let opens = network.client.run(|| TcpStream::connect_timeout(&address, Duration::from_millis(700)).is_ok());
            // Bound to a device, or full.
            let is_unclear = ip.is_ipv4() && [1010, 1011].contains(&port);
            assert_eq!(found.accepts(address), (!is_unclear).then_some(opens), "{address}");
            if opens {
                seen.insert((port, ip.is_ipv4()));
            }
        }
    }
    let expected = [
        (1002, true),
        (1003, true),
        (1004, false),
        (1004, true),
        (1005, false),
        (1006, true),
        (1007, true),
        (1008, false),
        (1012, true),
    ];
    assert_eq!(seen, expected.into(), "the listeners are as they were meant");
    assert_eq!(
        ["127.0.0.1:1001", "[::1]:1009"].map(|a| found.accepts(a.parse().expect("an address"))),
        [Some(true); 2]
    );
    assert!(!found.ports().any(|port| port == 1013), "it does not listen");
    assert!(Listeners::of(&open(&network.client)?)?.ports().next().is_none(), "nobody listens at the client");
    drop(stop);
    server.join().expect("no panic");
    Ok(())
}

/// A socket that stays is told from one that takes its place, in a group, too.
fn replaced_listener() -> Result<(), Failed> {
    let namespace = Namespace::new()?;
    let netns = open(&namespace)?;
    let address = SocketAddr::from(([127, 0, 0, 1], 1001));
    let listen = || namespace.run(|| bound(address, |socket| socket.set_reuse_port(true).expect("SO_REUSEPORT")));
    let look = || Listeners::of(&netns);
    let says = |now: &Listeners, before| now.still_accepts(before, address);

    let first = listen();
    let with_first = look()?;
    let second = listen();
    let with_both = look()?;
    assert_eq!([says(&with_first, &with_first), says(&with_both, &with_first)], [Some(true); 2]);
    drop(first);
    // About the wait see `many_listeners`.
    until("a listener is left", || look().is_ok_and(|now| says(&now, &with_first).is_none()));
    let with_second = look()?;
    assert_eq!((with_second.accepts(address), says(&with_second, &with_both)), (Some(true), Some(true)));
    drop(second);
    until("a listener is left", || look().is_ok_and(|now| says(&now, &with_second) == Some(false)));
    Ok(())
}

fn multipath(address: SocketAddr) -> Socket {
    let made = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP));
    let socket = made.or_else(|_| Socket::new(Domain::IPV4, Type::STREAM, None)).expect("a socket");
    socket.bind(&address.into()).expect("bind");
    socket.listen(16).expect("listen");
    socket
}

/// Every one of a thousand is found, in an answer of several parts, and connections are none.
fn many_listeners() -> Result<(), Failed> {
    const FIRST: u16 = 10_000;
    const MANY: u16 = 1000;
    let namespace = Namespace::new()?;
    namespace.ip("link set lo up\n")?;
    let netns = open(&namespace)?;
    let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
    let (sockets, connections) = namespace.run(|| {
        let sockets: Vec<TcpListener> =
            (FIRST..FIRST + MANY).map(|p| TcpListener::bind(any(p)).expect("bind")).collect();
        let connect = |port| TcpStream::connect(("127.0.0.1", port)).expect("connect");
        let connections: Vec<TcpStream> = (FIRST..FIRST + MANY).map(connect).collect();
        (sockets, connections)
    });
    let found = Listeners::of(&netns)?;
    assert!(found.ports().eq(FIRST..FIRST + MANY), "{:?}", found.ports().count());
    assert!((FIRST..FIRST + MANY).all(|port| found.accepts(([192, 0, 2, 1], port).into()) == Some(true)));
    drop((sockets, connections));
    // Other trials start programs: until such a child executes its own, it holds a copy of every descriptor.
    until("a listener is left", || Listeners::of(&netns).is_ok_and(|found| found.ports().next().is_none()));
    Ok(())
}

/// Neither a descriptor of the namespace, nor a thread in it, nor a socket that keeps it alive.
fn nothing_is_left() -> Result<(), Failed> {
    let network = Network::new()?;
    let (id, path) = (open(&network.client)?.id(), network.client.path());
    for _ in 0..1000 {
        let netns = Netns::open(Path::new(&path))?;
        Listeners::of(&netns)?;
        let pod = InPod::new(netns)?;
        for family in Family::ALL {
            let used = pod.tcp(address("$target", *family, 80))?;
            drop(pod.udp(address("$target", *family, 53))?);
            drop(used);
        }
    }
    let leads_here = |path: PathBuf| fs::metadata(path).is_ok_and(|f| (f.dev(), f.ino()) == (id.device, id.inode));
    let descriptors = fs::read_dir("/proc/self/fd")?.flatten().filter(|entry| leads_here(entry.path())).count();
    assert_eq!(descriptors, 1, "the test's own is left");
    until("a thread is left in the namespace", || {
        let tasks = fs::read_dir("/proc/self/task").expect("its threads");
        !tasks.flatten().any(|task| leads_here(task.path().join("ns/net")))
    });
    // Then the namespace goes, and its end of the cable with it.
    let Network { client, router, server } = network;
    drop(client);
    let cable_is_gone = || {
        let names = router.run(|| fs::read_to_string("/proc/thread-self/net/dev")).expect("its interfaces");
        assert!(names.contains("servers:"), "{names}");
        !names.contains("clients:")
    };
    until("a socket keeps the namespace alive", cable_is_gone);
    drop(server);
    Ok(())
}

pub fn until(otherwise: &str, done: impl Fn() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < give_up, "{otherwise}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The role that this process plays in place of the lab.
const ROLE: &str = "SEGPROBE_LAB_ROLE";

/// What concerns a whole process is tried in one of its own, which has one thread when it starts.
pub fn in_a_child(role: &str) -> Result<(), Failed> {
    let output = Command::new(env::current_exe()?).env(ROLE, role).stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{}: {text}", output.status).into()) }
}

/// Plays a role, if this process is to.
pub fn child() -> Option<ExitCode> {
    let role = env::var_os(ROLE)?;
    match role.to_str() {
        Some("privileges") => privileges(),
        Some("churn") => crate::pods::churn(),
        _ => panic!("{role:?}"),
    }
    Some(ExitCode::SUCCESS)
}

fn privileges() {
    let namespace = Namespace::new().expect("a namespace");
    let netns = Netns::open(Path::new(&namespace.path())).expect("it is one");
    limits(&netns);

    let held = || fs::read_to_string("/proc/self/status").expect("the own status");
    let line = |name: &str| {
        let status = held();
        let line = status.lines().find_map(|l| l.strip_prefix(name)).expect("the line");
        u64::from_str_radix(line.trim(), 16).expect("a number")
    };
    let sys_admin = CapabilitySet::SYS_ADMIN.bits();
    assert!(line("CapPrm:") > sys_admin, "the lab has them all");
    drop_all_but(CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE).expect("drop");
    assert_eq!(line("CapPrm:"), sys_admin | CapabilitySet::SYS_PTRACE.bits());
    drop_all_but(CapabilitySet::SYS_ADMIN).expect("drop");
    for set in ["CapPrm:", "CapEff:"] {
        assert_eq!(line(set), sys_admin, "{set}");
    }
    assert_eq!((line("CapInh:"), line("CapAmb:"), line("NoNewPrivs:")), (0, 0, 1));
    assert!(has_sys_admin());
    assert_eq!(netns.visit(|| ()).map_err(|e| e.to_string()), Ok(()), "it is enough");

    drop_all_but(CapabilitySet::empty()).expect("drop");
    drop_all_but(CapabilitySet::SYS_ADMIN).expect("what it does not have it need not drop, and does not get");
    assert_eq!((line("CapPrm:"), line("CapEff:")), (0, 0));
    assert!(!has_sys_admin());
    assert!(matches!(netns.visit(|| ()), Err(EnterError::NotPermitted { .. })));

    let (stop, stopped) = mpsc::channel::<()>();
    let other = thread::spawn(move || stopped.recv());
    assert!(drop_all_but(CapabilitySet::empty()).is_err(), "another thread would keep its own");
    drop(stop);
    let _ = other.join();
    assert!(capabilities(None).expect("the own").permitted.is_empty());
}

/// With few descriptors there are few sockets, and with none an error that says so.
fn limits(netns: &Netns) {
    let pod = InPod::new(Netns::open(Path::new("/proc/self/ns/net")).expect("the own")).expect("enter it");
    let peer: SocketAddr = ([127, 0, 0, 1], 80).into();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit");
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard).expect("lower it");
    let mut files: Vec<File> = std::iter::repeat_with(|| File::open("/dev/null")).map_while(Result::ok).collect();
    files.truncate(files.len() - 2);
    let two = [pod.tcp(peer), pod.tcp(peer)];
    let third = pod.tcp(peer);
    let none = Netns::open(Path::new("/proc/self/ns/net"));
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("raise it");
    assert!(two.iter().all(Result::is_ok), "{two:?}");
    assert_eq!(third.expect_err("no descriptor is left").raw_os_error(), Some(nix::libc::EMFILE));
    assert!(matches!(none, Err(EnterError::Exhausted { .. })), "{none:?}");
    pod.tcp(peer).expect("as soon as there are some");
    assert!(netns.visit(|| ()).is_ok());
}
