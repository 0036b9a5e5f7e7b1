//! Bulk TCP through a service beside plain routing to the same pod.

use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use serde::Serialize;

use super::median;
use crate::family::Family;
use crate::manifests::{Condition, Port, Service};
use crate::processor::stay_on;
use crate::socket;
use crate::topology::{Host, Topology, web_address};
use crate::world::{OTHER_CLUSTER_IP, OTHER_VIP, World};

const BULK: Port = Port {
    name: "bulk",
    protocol: "TCP",
    port: 9000,
    target: 9000,
    node_port: None,
};
/// The pod that receives: one of node 1, so that the path is as short as it can be.
const RECEIVER: usize = 0;
/// A multiple of the ways that are measured.
const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(500);
const SENDER: usize = 0;
const RECEIVER_PROCESSOR: usize = 1;
const CHUNK: usize = 128 * 1024;

/// Medians of one family, in gigabits per second.
#[derive(Debug, Serialize)]
pub struct Throughput {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Straight to the pod, on hosts without Sluice.
    pub plain_gbps: f64,
    /// Straight to the pod, with the programs attached.
    pub beside_gbps: f64,
    /// Through the load balancer's address.
    pub service_gbps: f64,
    /// Service to plain: the median of every round's ratio, because the machine's pace drifts between rounds.
    pub ratio: f64,
    /// Service to plain, of each way's fastest round: what else the machine does only ever slows a round down.
    pub ratio_of_best: f64,
}

/// Measures both families, all ways in turn.
pub fn measure() -> Result<Vec<Throughput>> {
    let plain = Topology::new()?;
    let world = World::new(&[RECEIVER])?;
    let service = Service::new("bulk", OTHER_CLUSTER_IP, OTHER_VIP, &[BULK]);
    world.add_service(&service, &[(RECEIVER, Condition::Ready)])?;
    Family::BOTH
        .into_iter()
        .map(|family| measure_family(&plain, &world.topology, family))
        .collect()
}

fn measure_family(plain: &Topology, sluice: &Topology, family: Family) -> Result<Throughput> {
    let pod = SocketAddr::new(web_address(RECEIVER).of(family), BULK.target);
    let vip = SocketAddr::new(OTHER_VIP.of(family), BULK.port);
    let ways = [(plain, pod), (sluice, pod), (sluice, vip)];
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let mut measured = [0.0; 3];
        // Each way comes first, second and last equally often, because the machine's pace drifts within a round, too.
        for place in 0..ways.len() {
            let way = (round + place) % ways.len();
            let (topology, to) = ways[way];
            let receiver = topology.web.get(RECEIVER).context("no receiver")?;
            measured[way] = send(&topology.client, receiver, to)?;
        }
        rounds.push(measured);
    }
    let of = |value: fn(&[f64; 3]) -> f64| median(rounds.iter().map(value).collect());
    let best = |value: fn(&[f64; 3]) -> f64| rounds.iter().map(value).fold(0.0, f64::max);
    Ok(Throughput {
        family: family.name().to_lowercase(),
        plain_gbps: of(|[plain, ..]| *plain),
        beside_gbps: of(|[_, beside, _]| *beside),
        service_gbps: of(|[.., service]| *service),
        ratio: of(|[plain, _, service]| service / plain),
        ratio_of_best: best(|[.., service]| *service) / best(|[plain, ..]| *plain),
    })
}

/// Sends for a while; gigabits per second that arrived.
fn send(from: &Host, receiver: &Host, to: SocketAddr) -> Result<f64> {
    let arriving = receive_once(receiver)?;
    from.netns.run(|| {
        // Where the scheduler puts the two ends would decide the figure otherwise.
        stay_on(SENDER)?;
        let mut stream = socket::tcp(to, None)?;
        let chunk = vec![0x5a; CHUNK];
        let begin = Instant::now();
        while begin.elapsed() < ROUND {
            stream.write_all(&chunk)?;
        }
        Ok(())
    })?;
    arriving.join().map_err(|_| anyhow!("the receiver panicked"))?
}

/// Takes one connection until its end; gigabits per second from the first byte on.
fn receive_once(host: &Host) -> Result<JoinHandle<Result<f64>>> {
    let listener = host
        .netns
        .run(|| Ok(TcpListener::bind((Ipv6Addr::UNSPECIFIED, BULK.target))?))?;
    host.netns.spawn(move || {
        stay_on(RECEIVER_PROCESSOR)?;
        let (mut stream, _) = listener.accept()?;
        let mut buffer = vec![0; CHUNK];
        let mut bytes = stream.read(&mut buffer)?;
        let begin = Instant::now();
        loop {
            match stream.read(&mut buffer)? {
                0 => break,
                len => bytes += len,
            }
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "the digits that are lost are below a bit per second"
        )]
        let bits = bytes as f64 * 8.0;
        Ok(bits / begin.elapsed().as_secs_f64() / 1e9)
    })
}
