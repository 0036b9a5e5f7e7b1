//! What no backend is there for is refused at once, as a host would do it.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lb_common::{Counter, DropReason};
use lb_tests::dns;
use lb_tests::family::{Family, Pair};
use lb_tests::http::{self, Connection};
use lb_tests::manifests::{Condition, DNS, ECHO_TCP, HTTP};
use lb_tests::need_root;
use lb_tests::tools::Ping;
use lb_tests::topology::{Layout, PodNetwork, RpFilter};
use lb_tests::world::{CLUSTER_IP, VIP, World};

use super::{askers, front_ends, on, vip};

/// Less than the second after which a SYN is sent again.
const AT_ONCE: Duration = Duration::from_millis(800);
/// Long enough to be sure that nothing comes.
const SILENCE: Duration = Duration::from_millis(300);

/// A connection is refused, and at once.
fn is_refused_tcp(to: SocketAddr) -> Result<()> {
    let begin = Instant::now();
    let error = TcpStream::connect_timeout(&to, Duration::from_secs(3))
        .err()
        .context("somebody has taken the connection")?;
    is_at_once(to, begin, &error)
}

/// A datagram is refused, and at once.
fn is_refused_udp(to: SocketAddr) -> Result<()> {
    let begin = Instant::now();
    let error = ask_udp(to, Duration::from_secs(3))?
        .err()
        .context("somebody has answered")?;
    is_at_once(to, begin, &error)
}

/// The error is a refusal, and came before anything was sent again.
fn is_at_once(to: SocketAddr, begin: Instant, error: &std::io::Error) -> Result<()> {
    let elapsed = begin.elapsed();
    ensure!(error.kind() == ErrorKind::ConnectionRefused, "{to}: {error}");
    ensure!(elapsed < AT_ONCE, "{to}: only after {elapsed:?}");
    Ok(())
}

/// What comes back for a datagram.
fn ask_udp(to: SocketAddr, wait: Duration) -> Result<std::io::Result<usize>> {
    let socket = UdpSocket::bind(SocketAddr::new(Family::of(to.ip()).unspecified(), 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(wait))?;
    socket.send(b"anybody there?")?;
    Ok(socket.recv(&mut [0; 64]))
}

/// Nobody answers, and nobody says so.
fn is_silent(to: SocketAddr) -> Result<()> {
    let error = TcpStream::connect_timeout(&to, SILENCE)
        .err()
        .context("connected")?;
    ensure!(error.kind() == ErrorKind::TimedOut, "{to}: {error}");
    let error = ask_udp(to, SILENCE)?.err().context("answered")?;
    ensure!(error.kind() == ErrorKind::WouldBlock, "{to}: {error}");
    Ok(())
}

/// Without endpoints every front end refuses everybody, over TCP and UDP, until there are endpoints.
fn check(layout: Layout) {
    let world = World::with(layout, &[0]).unwrap();
    let client = &world.topology.client;
    let mut open: Vec<_> = on(client, || {
        let connect = |family| Connection::open(vip(family, HTTP));
        Family::BOTH.into_iter().map(connect).collect()
    });
    world.set_endpoints(&[]).unwrap();
    let maps = world.agent.maps();
    let [resets, errors] = [Counter::AnsweredReset, Counter::AnsweredUnreachable];
    assert_eq!(
        (maps.counter(resets).unwrap(), maps.counter(errors).unwrap()),
        (0, 0)
    );
    for from in askers(&world) {
        for family in Family::BOTH {
            on(from, || {
                for to in front_ends(family, HTTP)
                    .into_iter()
                    .chain(front_ends(family, ECHO_TCP))
                {
                    is_refused_tcp(to).with_context(|| from.name.clone())?;
                }
                for to in front_ends(family, DNS) {
                    is_refused_udp(to).with_context(|| from.name.clone())?;
                }
                Ok(())
            });
        }
    }
    // Three askers, two families, three front ends of two ports, or of one.
    assert_eq!(
        (maps.counter(resets).unwrap(), maps.counter(errors).unwrap()),
        (36, 18)
    );
    // What was open goes on.
    for connection in &mut open {
        assert_eq!(connection.ask().unwrap().backend, "web-1");
    }
    world.set_endpoints(&[(1, Condition::Ready)]).unwrap();
    for from in [client, &world.topology.toolbox] {
        for family in Family::BOTH {
            on(from, || {
                for to in front_ends(family, HTTP) {
                    http::ask(to)?;
                }
                for to in front_ends(family, DNS) {
                    dns::ask(to)?;
                }
                Ok(())
            });
        }
    }
}

#[test]
fn without_endpoints_everybody_is_refused() {
    need_root!();
    check(Layout::default());
}

#[test]
fn refusals_pass_a_strict_reverse_path_filter() {
    need_root!();
    check(Layout {
        rp_filter: RpFilter::Strict,
        ..Layout::default()
    });
}

#[test]
fn refusals_reach_pods_behind_a_bridge() {
    need_root!();
    check(Layout {
        pods: PodNetwork::Bridge,
        rp_filter: RpFilter::Strict,
    });
}

#[test]
fn a_port_that_no_service_has_is_refused() {
    need_root!();
    let world = World::new(&[0]).unwrap();
    let unlisted = 4711;
    for family in Family::BOTH {
        let [cluster_ip, vip] = [CLUSTER_IP, VIP].map(|addr| SocketAddr::new(addr.of(family), unlisted));
        for from in askers(&world) {
            on(from, || {
                is_refused_tcp(cluster_ip)?;
                is_refused_udp(cluster_ip)
            });
        }
        // From inside a load balancer's address is on its way to the load balancer.
        on(&world.topology.client, || {
            is_refused_tcp(vip)?;
            is_refused_udp(vip)
        });
    }
}

#[test]
fn addresses_of_services_answer_pings() {
    need_root!();
    let world = World::new(&[0]).unwrap();
    let topology = &world.topology;
    let ping = Ping {
        count: 2,
        ..Ping::default()
    };
    for family in Family::BOTH {
        for (from, to) in [
            (&topology.client, CLUSTER_IP),
            (&topology.toolbox, CLUSTER_IP),
            (&topology.node1, CLUSTER_IP),
            (&topology.client, VIP),
        ] {
            let report = ping.run(from, to.of(family)).unwrap();
            assert_eq!(report.received, 2, "{} {to:?}: {report:?}", from.name);
        }
    }
    let answered = world.agent.maps().counter(Counter::AnsweredEcho).unwrap();
    assert_eq!(answered, 16);
}

#[test]
fn unused_addresses_of_services_are_silent() {
    need_root!();
    let mut world = World::new(&[0]).unwrap();
    world.agent.stop().unwrap();
    let prefixes = [
        "--service-cidr",
        "10.96.0.0/16",
        "--service-cidr",
        "fd00:96::/108",
    ];
    world.agent.start(&world.topology.node1, &prefixes).unwrap();
    let unused = Pair::new([10, 96, 7, 7].into(), [0xfd00, 0x96, 0, 0, 0, 0, 0, 0x77].into());
    let dropped = || {
        world
            .agent
            .maps()
            .drops(DropReason::UnusedServiceAddress)
            .unwrap()
    };
    for from in askers(&world) {
        for family in Family::BOTH {
            let before = dropped();
            on(from, || is_silent(SocketAddr::new(unused.of(family), 80)));
            assert!(dropped() >= before + 2, "{}", from.name);
        }
    }
}

#[test]
fn answers_are_limited() {
    need_root!();
    let mut world = World::new(&[]).unwrap();
    world.agent.stop().unwrap();
    let limit = ["--answers-per-second", "20"];
    world.agent.start(&world.topology.node1, &limit).unwrap();
    let maps = world.agent.maps();
    on(&world.topology.client, || {
        for _datagram in 0..200 {
            // Refused or not: only that it was sent counts.
            let _answer = ask_udp(vip(Family::V4, DNS), Duration::from_millis(1))?;
        }
        Ok(())
    });
    let answered = maps.counter(Counter::AnsweredUnreachable).unwrap();
    let dropped = maps.drops(DropReason::AnswerLimited).unwrap();
    assert_eq!(answered + dropped, 200);
    assert!(
        answered >= 20 && dropped >= 100,
        "{answered} answered, {dropped} dropped"
    );
}
