//! The test bed: each packet goes through all engines, which must agree.

use std::fmt::Debug;
use std::net::SocketAddr;

use lb_common::addr::Address as _;
use lb_common::{Flow, FlowKey, Port, ServiceStats, Stage, protocol};
use lb_ebpf::testkit::{Counts, Frame, Host, Program};

use super::{Engine, Outcome, Rows, Step, TestFamily, UPLINK, Verdict, Written};
use crate::packet::{PacketBuilder, flag};

/// Engines with the same rows, flows and clock.
pub struct Bed<'a, F: TestFamily> {
    engines: Vec<&'a mut dyn Engine<F>>,
    /// What [`Bed::write`] writes.
    pub rows: Rows<F>,
    /// The protocol of the services.
    pub protocol: u8,
    /// The device of the packets to come.
    pub device: u32,
    /// For how many packets on the wire each one stands.
    pub segments: u32,
    /// At egress: the node itself has made the packets to come.
    pub own: bool,
}

impl<'a, F: TestFamily> Bed<'a, F> {
    /// A bed with the standard rows for services of this protocol.
    pub fn new(engines: &'a mut [&mut dyn Engine<F>], protocol: u8) -> Self {
        let mut bed = Self {
            engines: engines
                .iter_mut()
                .map(|engine| &mut **engine as &mut dyn Engine<F>)
                .collect(),
            rows: Rows::new(protocol),
            protocol,
            device: UPLINK,
            segments: 1,
            own: false,
        };
        bed.forget();
        bed.write();
        bed
    }

    /// Writes the rows into all engines.
    pub fn write(&mut self) {
        for engine in &mut self.engines {
            engine.write(&self.rows);
        }
    }

    /// Changes the rows and writes them.
    pub fn update(&mut self, change: impl FnOnce(&mut Rows<F>)) {
        change(&mut self.rows);
        self.write();
    }

    /// The first packet of a connection: SYN, INIT, or a datagram.
    pub fn opening(&self, source: SocketAddr, destination: SocketAddr) -> PacketBuilder {
        let packet = self.data(source, destination);
        match self.protocol {
            protocol::TCP => packet.flags(flag::SYN),
            protocol::SCTP => packet.init(),
            _ => packet,
        }
    }

    /// A packet of an open connection.
    pub fn data(&self, source: SocketAddr, destination: SocketAddr) -> PacketBuilder {
        match self.protocol {
            protocol::TCP => PacketBuilder::tcp(source, destination).flags(flag::ACK | flag::PSH),
            protocol::SCTP => PacketBuilder::sctp(source, destination),
            _ => PacketBuilder::udp(source, destination),
        }
    }

    /// The bed's services are TCP ones.
    pub fn is_tcp(&self) -> bool {
        self.protocol == protocol::TCP
    }

    /// Runs stage pre.
    #[track_caller]
    pub fn pre(&mut self, packet: &PacketBuilder) -> Step {
        self.run(Program::Pre, &packet.build())
    }

    /// Runs stage post.
    #[track_caller]
    pub fn post(&mut self, packet: &PacketBuilder) -> Step {
        self.run(Program::Post, &packet.build())
    }

    /// Runs XDP.
    #[track_caller]
    pub fn xdp(&mut self, packet: &PacketBuilder) -> Step {
        self.run(Program::Xdp, &packet.build())
    }

    /// Runs stage post on a packet of the node itself.
    #[track_caller]
    pub fn own(&mut self, packet: &PacketBuilder) -> Step {
        let before = std::mem::replace(&mut self.own, true);
        let step = self.run(Program::Post, &packet.build());
        self.own = before;
        step
    }

    /// Runs a program on all engines; they must agree on everything.
    #[track_caller]
    pub fn run(&mut self, program: Program, bytes: &[u8]) -> Step {
        let (mut first, mut written) = (None::<Step>, Written::default());
        let frame = self.frame(bytes);
        for engine in &mut self.engines {
            let before = engine.counts();
            let mut step = run_on(*engine, program, frame.clone(), first.as_ref());
            step.counts = difference(&engine.counts(), &before);
            let now = normal(*engine);
            let Some(first) = &first else {
                (first, written) = (Some(step), now);
                continue;
            };
            step.device = first.device;
            agree(engine.name(), "the step", first, &step, &self.rows, &now);
            agree_on_written(engine.name(), &written, &now, &step);
        }
        first.unwrap()
    }

    /// Runs a program on all engines and compares verdicts and bytes alone, for speed.
    #[track_caller]
    pub fn run_bare(&mut self, program: Program, bytes: &[u8]) -> (Verdict, Vec<u8>) {
        let frame = self.frame(bytes);
        let mut outcomes = self.engines.iter_mut().map(|engine| {
            let mut frame = frame.clone();
            let Outcome { verdict, .. } = engine.run(program, &mut frame);
            (engine.name(), verdict, frame.bytes)
        });
        let (_, verdict, after) = outcomes.next().unwrap();
        for (name, other_verdict, other_after) in outcomes {
            assert!(
                other_verdict.is_none() || (verdict == other_verdict && after == other_after),
                "{program:?} of {bytes:02x?}\nhost: {verdict:?} {after:02x?}\n{name}: {other_verdict:?} {other_after:02x?}"
            );
        }
        (verdict.unwrap(), after)
    }

    /// Compares what was written and counted; `before` are the counts that do not matter, one for each engine.
    #[track_caller]
    pub fn agree(&mut self, before: &[Counts]) {
        let mut states = self.engines.iter_mut().zip(before).map(|(engine, before)| {
            let counts = difference(&engine.counts(), before);
            (engine.name(), counts, normal(*engine))
        });
        let (_, counts, written) = states.next().unwrap();
        for (name, other_counts, other_written) in states {
            agree(name, "the counts", &counts, &other_counts, &(), &());
            agree_on_written(name, &written, &other_written, &());
        }
    }

    /// What each engine has counted so far.
    pub fn counts(&mut self) -> Vec<Counts> {
        self.engines.iter_mut().map(|engine| engine.counts()).collect()
    }

    /// The entry for packets from `source` to `destination` in a stage.
    pub fn flow(
        &mut self,
        stage: Stage,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Option<Flow<F::Addr>> {
        let key = self.key(stage, source, destination);
        self.written().flows.get(&key).copied()
    }

    /// What the programs have written, with ages in seconds instead of times.
    pub fn written(&mut self) -> Written<F::Addr> {
        normal(self.engines[0])
    }

    /// How many entries the flow table has.
    pub fn flow_count(&mut self) -> usize {
        self.engines[0].written().flows.len()
    }

    /// Removes an entry, as eviction does.
    #[track_caller]
    pub fn evict(&mut self, stage: Stage, source: SocketAddr, destination: SocketAddr) {
        let key = self.key(stage, source, destination);
        self.rewrite(|written| {
            let flows = &mut written.flows;
            assert!(flows.remove(&key).is_some(), "{key:?} is not in {flows:?}");
        });
    }

    /// Changes an entry.
    #[track_caller]
    pub fn change_flow(
        &mut self,
        (stage, source, destination): (Stage, SocketAddr, SocketAddr),
        change: impl Fn(&mut Flow<F::Addr>),
    ) {
        let key = self.key(stage, source, destination);
        self.rewrite(|written| change(written.flows.get_mut(&key).unwrap()));
    }

    /// Changes what the programs have written.
    #[track_caller]
    pub fn rewrite(&mut self, change: impl Fn(&mut Written<F::Addr>)) {
        for engine in &mut self.engines {
            let mut written = engine.written();
            change(&mut written);
            engine.set_written(&written);
        }
    }

    /// Forgets all that the programs have written, and all sockets.
    pub fn forget(&mut self) {
        for engine in &mut self.engines {
            engine.forget();
        }
    }

    /// What the programs have written, one for each engine, to be restored.
    pub fn save(&mut self) -> Vec<Written<F::Addr>> {
        self.engines.iter_mut().map(|engine| engine.written()).collect()
    }

    /// Puts back what was saved.
    pub fn restore(&mut self, saved: &[Written<F::Addr>]) {
        for (engine, written) in self.engines.iter_mut().zip(saved) {
            engine.set_written(written);
        }
    }

    /// Lets so many seconds pass: everything that was written becomes older.
    pub fn wait(&mut self, seconds: u32) {
        self.rewrite(|written| written.age(seconds));
    }

    /// Connects a UDP socket of the node.
    pub fn connect(&mut self, local: SocketAddr, peer: SocketAddr) {
        let (local, peer) = (parts::<F>(local), parts::<F>(peer));
        for engine in &mut self.engines {
            engine.connect(local, peer);
        }
    }

    /// Opens a socket of the node for the bed's protocol that listens, or is bound.
    pub fn listen(&mut self, local: SocketAddr) {
        let protocol = self.protocol;
        for engine in &mut self.engines {
            engine.listen(protocol, parts::<F>(local));
        }
    }

    /// The host engine, when it is the only one: for what cannot be done to the kernel.
    pub fn host_alone(&mut self) -> Option<&mut Host> {
        match self.engines.as_mut_slice() {
            [only] => only.host(),
            _ => None,
        }
    }

    fn frame(&self, bytes: &[u8]) -> Frame {
        // A test run takes the `EtherType` from here, link layer or not.
        let ether_type = bytes
            .get(12..14)
            .map_or(0, |kind| u16::from_be_bytes([kind[0], kind[1]]));
        Frame {
            bytes: bytes.to_vec(),
            ifindex: self.device,
            segments: self.segments,
            ether_type,
            own: self.own,
        }
    }

    fn key(&self, stage: Stage, source: SocketAddr, destination: SocketAddr) -> FlowKey<F::Addr> {
        let ((src, src_port), (dst, dst_port)) = (parts::<F>(source), parts::<F>(destination));
        FlowKey {
            src,
            dst,
            src_port: Port::new(src_port),
            dst_port: Port::new(dst_port),
            protocol: self.protocol,
            stage: stage as u8,
            pad: [0; 2],
        }
    }
}

fn parts<F: TestFamily>(end: SocketAddr) -> (F::Addr, u16) {
    (F::Addr::from_ip(end.ip()).unwrap(), end.port())
}

/// A step without its counts. What the engine cannot show is as in the `first` one's step.
fn run_on<F: TestFamily>(
    engine: &mut dyn Engine<F>,
    program: Program,
    mut frame: Frame,
    first: Option<&Step>,
) -> Step {
    let before = frame.bytes.clone();
    let Outcome { verdict, device } = engine.run(program, &mut frame);
    let (verdict, after) = match (verdict, first) {
        (Some(verdict), _) => (verdict, frame.bytes),
        (None, Some(first)) => (first.verdict, first.after.clone()),
        (None, None) => panic!("the first engine shows everything"),
    };
    Step {
        verdict,
        device,
        before,
        after,
        counts: Counts::default(),
    }
}

fn normal<F: TestFamily>(engine: &mut dyn Engine<F>) -> Written<F::Addr> {
    let now = engine.now();
    engine.written().normal(now)
}

#[track_caller]
fn agree<T: PartialEq + Debug>(
    name: &str,
    what: &str,
    host: &T,
    other: &T,
    more: &dyn Debug,
    state: &dyn Debug,
) {
    assert!(
        host == other,
        "{name} and host disagree about {what}\nhost: {host:#02x?}\n{name}: {other:#02x?}\n{more:#?}\n{state:#02x?}"
    );
}

#[track_caller]
fn agree_on_written<A: Ord + Debug>(name: &str, host: &Written<A>, other: &Written<A>, more: &dyn Debug) {
    let differences = host.differences(other);
    assert!(
        differences.is_empty(),
        "{name} and host disagree about what was written:\n{}{more:02x?}",
        differences.concat()
    );
}

fn difference(after: &Counts, before: &Counts) -> Counts {
    let mut counts = after.clone();
    for (reason, count) in &before.drops {
        *counts.drops.entry(*reason).or_default() -= count;
    }
    for (counter, count) in &before.counters {
        *counts.counters.entry(*counter).or_default() -= count;
    }
    for (service, stats) in &before.services {
        let now = counts.services.entry(*service).or_default();
        now.packets -= stats.packets;
        now.bytes -= stats.bytes;
        now.reply_packets -= stats.reply_packets;
        now.reply_bytes -= stats.reply_bytes;
        now.connections -= stats.connections;
        now.dropped -= stats.dropped;
    }
    counts.drops.retain(|_, count| *count > 0);
    counts.counters.retain(|_, count| *count > 0);
    counts
        .services
        .retain(|_, stats| *stats != ServiceStats::default());
    counts
}
