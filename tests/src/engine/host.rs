//! The core on the host.

use std::collections::BTreeMap;

use lb_common::Port;
use lb_ebpf::testkit::{self, Counts, Frame, Host, Program};

use super::{Engine, Outcome, Rows, TestFamily, Verdict, Written, ground};

impl<F: TestFamily> Engine<F> for Host {
    fn name(&self) -> &'static str {
        "host"
    }

    fn forget(&mut self) {
        let tables = F::of_mut(self);
        tables.unflip();
        tables.sockets.clear();
        tables.bound.clear();
        tables.flow_limit = usize::MAX;
        tables.flipped.get_mut().clear();
        tables.ways = ground::ways::<F>();
        tables.rules = ground::rules::<F>();
        self.limits.clear();
        self.now = 1_000_000_000;
        Engine::<F>::set_written(self, &Written::default());
    }

    fn write(&mut self, rows: &Rows<F>) {
        self.devices.clone_from(&rows.devices);
        self.policies.clone_from(&rows.policies);
        self.settings = rows.settings;
        let tables = F::of_mut(self);
        tables.services.clone_from(&rows.services);
        tables.slots.clone_from(&rows.slots);
        tables.backends.clone_from(&rows.backends);
        tables.locals.clone_from(&rows.locals);
        tables.ranges.clone_from(&rows.ranges);
        tables.snat.clone_from(&rows.snat);
        tables.family = rows.family;
        tables.node_addresses.clone_from(&rows.node_addresses);
    }

    fn run(&mut self, program: Program, frame: &mut Frame) -> Outcome {
        let here = frame.ifindex;
        let is_xdp = program == Program::Xdp;
        let (verdict, device) = match Self::run(self, program, frame) {
            testkit::Verdict::On => (Verdict::On, None),
            testkit::Verdict::Dropped(_) => (Verdict::Dropped, None),
            testkit::Verdict::Out(device) if is_xdp && device == here => (Verdict::Back, Some(device)),
            testkit::Verdict::Back if is_xdp => (Verdict::Back, Some(here)),
            testkit::Verdict::Back => (Verdict::Redirected, Some(here)),
            testkit::Verdict::Out(device) | testkit::Verdict::Arrive(device) => {
                (Verdict::Redirected, Some(device))
            }
        };
        Outcome {
            verdict: Some(verdict),
            device,
        }
    }

    fn counts(&mut self) -> Counts {
        self.counts.clone()
    }

    fn written(&mut self) -> Written<F::Addr> {
        let limits = used(&self.limits);
        let tables = F::of(self);
        Written {
            flows: tables.flows.clone(),
            affinity: tables.affinity.clone(),
            fragments: tables.fragments.clone(),
            sources: tables.sources.clone(),
            paths: tables.paths.clone(),
            loads: used(&tables.loads),
            limits,
        }
    }

    fn set_written(&mut self, written: &Written<F::Addr>) {
        self.limits.clone_from(&written.limits);
        let tables = F::of_mut(self);
        tables.flows.clone_from(&written.flows);
        tables.affinity.clone_from(&written.affinity);
        tables.fragments.clone_from(&written.fragments);
        tables.sources.clone_from(&written.sources);
        tables.paths.clone_from(&written.paths);
        tables.loads.clone_from(&written.loads);
    }

    fn now(&mut self) -> u32 {
        self.now
    }

    fn connect(&mut self, (local, local_port): (F::Addr, u16), (peer, peer_port): (F::Addr, u16)) {
        let socket = [(local, Port::new(local_port)), (peer, Port::new(peer_port))];
        F::of_mut(self).sockets.insert(socket);
    }

    fn listen(&mut self, protocol: u8, (local, port): (F::Addr, u16)) {
        F::of_mut(self).bound.insert((local, Port::new(port), protocol));
    }

    fn host(&mut self) -> Option<&mut Host> {
        Some(self)
    }
}

/// What is not zero.
fn used<V: Copy + Default + PartialEq>(rows: &BTreeMap<u32, V>) -> BTreeMap<u32, V> {
    rows.iter()
        .map(|(index, row)| (*index, *row))
        .filter(|(_, row)| *row != V::default())
        .collect()
}
