//! The pipe: events in, rows out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lb_common::{Settings, V4, V6};

use super::apply::{Outcome, apply};
use super::diff::{diff_addresses, diff_devices, diff_port, diff_settings};
use super::plan::{NODE, Plan};
use super::problems::{self, Problems};
use crate::desired::{self, Claims, DesiredPort, Surroundings};
use crate::image::{Image, NoRoom};
use crate::model::{HostState, Kind, Object, ObjectName, Origin, PortName, Problem, World};
use crate::source::SourceEvent;
use crate::store::{FamilyTables, MapStore, Rows, StoreError};

/// The first and the longest time until something that failed is tried again, unless room was made: then at once.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// What the pipe is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of this node's Node object.
    pub node_name: String,
    /// The row of settings; its NodePort range is filled in by the pipe.
    pub settings: Settings,
    /// Whether IPv4 is on.
    pub ipv4: bool,
    /// Whether IPv6 is on.
    pub ipv6: bool,
}

/// Events in, rows out: everything between the sources and the maps.
#[derive(Debug)]
pub struct Pipe {
    config: Config,
    world: World,
    claims: Claims,
    /// `None` until it is known.
    host: Option<HostState>,
    image: Image,
    /// What the maps hold.
    rows: Rows,
    synced: bool,
    /// Ids left over by an agent that was killed.
    strays: Vec<u32>,
    problems: Problems,
    /// Services whose last update failed, wholly or in part.
    failing: BTreeSet<ObjectName>,
    retries: u32,
}

/// What one pass did.
#[derive(Debug, Default)]
pub struct Report {
    /// Rows written.
    pub written: usize,
    /// Rows deleted.
    pub deleted: usize,
    /// What a person should mend; each is here once while it stays the same.
    pub problems: Vec<Problem>,
    /// When something failed that may go better: call [`Pipe::retry`] and [`Pipe::sync`] after this time.
    pub retry_after: Option<Duration>,
}

/// What a pass is about: the Services, the problems with each, and the ports that are planned, by id.
#[derive(Debug, Default)]
struct Pass {
    plan: Plan,
    problems: BTreeMap<ObjectName, BTreeSet<Problem>>,
    ports: BTreeMap<u32, Option<PortName>>,
    failing: BTreeSet<ObjectName>,
}

impl Pass {
    /// Whether a Service was brought to its end, which may have freed rows that others lack.
    fn has_finished(&self) -> bool {
        let mut names = self.ports.values().flatten();
        names.any(|name| !self.failing.contains(&name.service))
    }
}

impl Pipe {
    /// Reads what the maps hold, so that ids stay as they are.
    pub fn adopt(store: &impl MapStore, config: Config) -> Result<Self, StoreError> {
        let rows = Rows::of(store)?;
        let image = Image::adopt(store, &rows)?;
        let strays = image.strays(&rows);
        let mut world = World::default();
        for service in image.services() {
            world.touch(service.clone());
        }
        let (claims, problems, failing) = Default::default();
        Ok(Self {
            config,
            world,
            claims,
            host: None,
            image,
            rows,
            synced: false,
            strays,
            problems,
            failing,
            retries: 0,
        })
    }

    /// Takes an event of a source; nothing is written before [`Self::sync`].
    pub fn apply(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Apply { object, origin } => {
                if let Object::Service(service) = &object {
                    self.claim(&service.name.clone(), desired::claims_of(service));
                }
                self.world.apply(object, origin);
            }
            SourceEvent::Delete(gone) => {
                if gone.kind == Kind::Service {
                    self.claim(&gone.name, BTreeSet::new());
                }
                self.world.delete(&gone);
            }
            SourceEvent::Synced => self.synced = true,
            SourceEvent::Problem(problem) => self.problems.add(problem),
        }
    }

    /// Takes the node's devices and addresses; nothing is written before [`Self::sync`].
    pub fn host_changed(&mut self, host: HostState) {
        self.host = Some(host);
    }

    /// Makes the next [`Self::sync`] try again what failed.
    pub fn retry(&mut self) {
        self.retries = self.retries.saturating_add(1);
        for service in std::mem::take(&mut self.failing) {
            self.world.touch(service);
        }
    }

    /// Writes what differs. Before the source is synced only devices are written.
    pub fn sync(&mut self, store: &mut impl MapStore) -> Report {
        let mut pass = Pass::default();
        self.plan_node(&mut pass.plan);
        if self.synced {
            self.plan_strays(&mut pass);
            for service in self.world.take_changed() {
                self.plan_service(&service, &mut pass);
            }
        }
        let outcome = apply(std::mem::take(&mut pass.plan), store, &mut self.rows);
        self.finish(pass, outcome)
    }

    /// Raises the epoch of routes and writes it at once, and nothing else; before the source is synced it is only raised.
    /// What cannot be written is written by the next [`Self::sync`].
    pub fn routes_changed(&mut self, store: &mut impl MapStore) -> Result<(), StoreError> {
        let epoch = &mut self.config.settings.route_epoch;
        *epoch = epoch.wrapping_add(1);
        let mut plan = Plan::default();
        if self.synced {
            self.plan_settings(&mut plan);
        }
        let mut outcome = apply(plan, store, &mut self.rows);
        outcome.failed.remove(&NODE).map_or(Ok(()), Err)
    }

    /// Whether any front end has this flag ([`lb_common::ServiceFlags`]).
    pub fn has_front_end_with(&self, flag: u32) -> bool {
        fn of_family<F: FamilyTables>(rows: &Rows, flag: u32) -> bool {
            rows.iter::<F::Services>().any(|(_, row)| row.flags & flag != 0)
        }
        of_family::<V4>(&self.rows, flag) || of_family::<V6>(&self.rows, flag)
    }

    /// The lowest and the highest NodePort of all Services.
    pub fn node_ports(&self) -> Option<(u16, u16)> {
        self.claims.node_ports()
    }

    fn claim(&mut self, service: &ObjectName, wanted: BTreeSet<desired::Claim>) {
        for other in self.claims.update(service, wanted) {
            self.world.touch(other);
        }
    }

    fn plan_node(&self, plan: &mut Plan) {
        if let Some(host) = &self.host {
            diff_devices(&desired::node::devices(host), &self.rows, plan);
        }
        if !self.synced {
            return;
        }
        self.plan_settings(plan);
        let Some(host) = &self.host else { return };
        let node = self.world.node(&self.config.node_name);
        if self.config.ipv4 {
            diff_addresses::<V4>(&desired::node::addresses::<V4>(host, node), &self.rows, plan);
        }
        if self.config.ipv6 {
            diff_addresses::<V6>(&desired::node::addresses::<V6>(host, node), &self.rows, plan);
        }
    }

    fn plan_settings(&self, plan: &mut Plan) {
        let (node_port_min, node_port_max) = self.node_ports().unwrap_or((1, 0));
        let wanted = Settings {
            node_port_min,
            node_port_max,
            ..self.config.settings
        };
        diff_settings(wanted, &self.rows, plan);
    }

    /// Clears up what no object leads to.
    fn plan_strays(&mut self, pass: &mut Pass) {
        for rows in self.image.cast_off(&self.rows) {
            diff_port(&rows, &self.rows, &mut pass.plan);
        }
        for id in std::mem::take(&mut self.strays) {
            diff_port(&self.image.retire(id, &self.rows), &self.rows, &mut pass.plan);
            pass.ports.insert(id, None);
        }
    }

    fn plan_service(&mut self, service: &ObjectName, pass: &mut Pass) {
        let wanted = self.desired(service);
        for name in self.image.ports_of(service) {
            if let Some(id) = self.image.id(&name)
                && !wanted.iter().any(|port| port.name == name)
            {
                diff_port(&self.image.retire(id, &self.rows), &self.rows, &mut pass.plan);
                pass.ports.insert(id, Some(name));
            }
        }
        let mut problems = problems::of_objects(service, &self.world, &self.claims);
        for port in &wanted {
            if let Err(error) = self.plan_port(port, pass) {
                problems.insert(self.failure(&port.name, &error));
                pass.failing.insert(service.clone());
            }
        }
        pass.problems.insert(service.clone(), problems);
    }

    fn plan_port(&mut self, port: &DesiredPort, pass: &mut Pass) -> Result<(), NoRoom> {
        let id = match self.image.id(&port.name) {
            Some(id) => id,
            None => self.plan_id(&port.name, pass)?,
        };
        pass.ports.insert(id, Some(port.name.clone()));
        match self.image.assign(id, port, &self.rows) {
            Ok(wanted) => diff_port(&wanted, &self.rows, &mut pass.plan),
            Err(error) => {
                // What it took and will not use is other ports' again.
                self.image.settle(id, Some(&port.name), &self.rows);
                return Err(error);
            }
        }
        Ok(())
    }

    fn plan_id(&mut self, name: &PortName, pass: &mut Pass) -> Result<u32, NoRoom> {
        let vacated = self.image.take_id(name, &self.rows)?;
        diff_port(&vacated, &self.rows, &mut pass.plan);
        Ok(vacated.id)
    }

    fn desired(&self, service: &ObjectName) -> Vec<DesiredPort> {
        let Some(known) = self.world.service(service) else {
            return Vec::new();
        };
        let Config {
            node_name,
            settings: _,
            ipv4,
            ipv6,
        } = &self.config;
        let around = Surroundings {
            node_name,
            claims: &self.claims,
            ipv4: *ipv4,
            ipv6: *ipv6,
        };
        let slices = self.world.slices(service).map(|slice| &slice.object);
        desired::desired(&known.object, &slices, around)
    }

    /// Draws the conclusions from what was written: what is in use no more, what failed, what to tell.
    fn finish(&mut self, mut pass: Pass, outcome: Outcome) -> Report {
        for (id, name) in &pass.ports {
            self.image.settle(*id, name.as_ref(), &self.rows);
        }
        let Outcome {
            written,
            deleted,
            failed,
            held_up,
        } = outcome;
        let mut node = BTreeSet::new();
        for (id, error) in &failed {
            match pass.ports.get(id) {
                Some(Some(name)) => {
                    let problem = self.failure(name, error);
                    pass.problems
                        .entry(name.service.clone())
                        .or_default()
                        .insert(problem);
                }
                Some(None) => self.strays.push(*id),
                None if *id == NODE => _ = node.insert(node_failure(error)),
                // Nobody's row: it is tried again in every pass.
                None => {}
            }
        }
        let unfinished = failed
            .keys()
            .chain(&held_up)
            .filter_map(|id| pass.ports.get(id)?.as_ref());
        pass.failing.extend(unfinished.map(|name| name.service.clone()));
        let made_room = written + deleted > 0 && pass.has_finished();
        let node_failed = !node.is_empty();
        self.problems.update(&ObjectName::new("", ""), node);
        for (service, problems) in pass.problems {
            self.failing.remove(&service);
            self.problems.update(&service, problems);
        }
        self.failing.extend(pass.failing);
        let retry_after = self.retry_after(node_failed, made_room);
        Report {
            written,
            deleted,
            problems: self.problems.take(),
            retry_after,
        }
    }

    fn retry_after(&mut self, node_failed: bool, made_room: bool) -> Option<Duration> {
        if self.failing.is_empty() && self.strays.is_empty() && !node_failed {
            self.retries = 0;
            return None;
        }
        // Each such pass finishes a Service that others waited for, so this comes to an end.
        if made_room && !self.failing.is_empty() {
            return Some(Duration::ZERO);
        }
        let (first, longest) = RETRY;
        Some(first.saturating_mul(1 << self.retries.min(16)).min(longest))
    }

    fn failure(&self, port: &PortName, error: &dyn std::error::Error) -> Problem {
        let origin = self
            .world
            .service(&port.service)
            .map(|known| known.origin.clone());
        let text = format!(
            "port {}/{}: {}; its last good state stays",
            port.port,
            port.protocol.as_str(),
            chain(error)
        );
        Problem {
            object: Some(problems::reference(&port.service)),
            origin: origin.unwrap_or_default(),
            text,
        }
    }
}

/// What belongs to no object stands under the empty name.
fn node_failure(error: &StoreError) -> Problem {
    let text = format!("The node's own rows: {}; tried again soon", chain(error));
    Problem {
        object: None,
        origin: Origin::default(),
        text,
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
