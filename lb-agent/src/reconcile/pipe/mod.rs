//! The pipe: events in, rows out.

mod finish;
mod node;
mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use lb_common::{V4, V6};

use super::Config;
use super::apply::{Outcome, apply};
use super::diff::{diff_address, diff_port};
use super::plan::{NODE, Plan};
use super::problems::{self, Problems};
use crate::desired::health_check::HealthCheck;
use crate::desired::{self, Claims, DesiredPort, Surroundings, seed_words};
use crate::image::{Compromise, Image, NoRoom, name_text};
use crate::model::{HostState, IpFamily, Kind, Object, ObjectName, PortName, Problem, World};
use crate::source::SourceEvent;
use crate::store::{FamilyTables, MapStore, Rows, StoreError};

use standing::Standing;
pub use standing::WithoutLocal;

/// The first and the longest time until something that failed is tried again, unless room was made: then at once.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Events in, rows out: everything between the sources and the maps.
#[derive(Debug)]
pub struct Pipe {
    config: Config,
    world: World,
    claims: Claims,
    /// `None` until it is known.
    host: Option<HostState>,
    /// The node's addresses as the rows of Services were made by them.
    around: Around,
    image: Image,
    /// What the maps hold.
    rows: Rows,
    synced: bool,
    /// Ids left over by an agent that was killed.
    strays: Vec<u32>,
    problems: Problems,
    standing: Standing,
    /// Services whose last update failed, wholly or in part.
    failing: BTreeSet<ObjectName>,
    retries: u32,
    /// What is added to the clock.
    ahead: Duration,
}

/// What rows of Services depend on beside objects.
#[derive(Debug, Default)]
struct Around {
    own_addresses: BTreeSet<IpAddr>,
    node_ips: Vec<IpAddr>,
    zone: Option<String>,
}

/// What one pass did.
#[derive(Debug, Default)]
pub struct Report {
    /// Rows written.
    pub written: usize,
    /// Rows deleted.
    pub deleted: usize,
    /// How long writing and deleting took.
    pub writing: Duration,
    /// What a person should mend; each is here once while it stays the same.
    pub problems: Vec<Problem>,
    /// The health checks that are different now; none is there any more of those without one.
    pub health_checks: BTreeMap<ObjectName, Option<HealthCheck>>,
    /// The families of which rows could not be written, for another reason than that a map is full.
    pub unwritten: BTreeSet<IpFamily>,
    /// When something failed that may go better: call [`Pipe::retry`] and [`Pipe::sync`] after this time.
    pub retry_after: Option<Duration>,
    /// When the next backend that has left is to be forgotten: call [`Pipe::sync`] after this time.
    pub expire_after: Option<Duration>,
}

/// What a pass is about: the Services, the problems with each, and the ports that are planned, by id.
#[derive(Debug, Default)]
struct Pass {
    /// What is not written yet.
    plan: Plan,
    /// What became of that which is.
    outcome: Outcome,
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
        let image = Image::adopt(store, &rows, Instant::now())?;
        let strays = image.strays(&rows);
        let mut world = World::default();
        for service in image.services() {
            world.touch(service.clone());
        }
        let (claims, problems, standing, failing, around) = Default::default();
        Ok(Self {
            config,
            world,
            claims,
            host: None,
            around,
            image,
            rows,
            synced: false,
            strays,
            problems,
            standing,
            failing,
            retries: 0,
            ahead: Duration::ZERO,
        })
    }

    /// Takes an event of a source; nothing is written before [`Self::sync`]. Returns whether it changes anything.
    pub fn apply(&mut self, event: SourceEvent) -> bool {
        match event {
            SourceEvent::Apply { object, origin } => {
                if let Object::Service(service) = &object {
                    self.claim(&service.name.clone(), desired::claims_of(service));
                }
                return self.world.apply(object, origin);
            }
            SourceEvent::Delete(gone) => {
                if gone.kind == Kind::Service {
                    self.claim(&gone.name, BTreeSet::new());
                }
                self.world.delete(&gone);
            }
            SourceEvent::Synced => self.synced = true,
            SourceEvent::Problem(problem) => {
                self.problems.add(problem);
                return false;
            }
        }
        true
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

    /// Whether the source has told everything once.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Whether anything but chance has said what the seed of hashes is.
    pub fn has_seed(&self) -> bool {
        self.config.seed.is_some() || desired::cluster_seed(&self.world).is_some()
    }

    /// Uses this seed where nothing else says what it is.
    pub fn set_seed(&mut self, seed: u64) {
        self.config.settings.hash_seed = seed_words(seed);
    }

    /// Acts from now on as if so much more time had gone by: for tests.
    pub fn advance(&mut self, time: Duration) {
        self.ahead += time;
    }

    /// Writes what differs. Before the source is synced only devices are written.
    pub fn sync(&mut self, store: &mut impl MapStore) -> Report {
        let mut pass = Pass::default();
        let now = Instant::now() + self.ahead;
        if self.synced {
            self.look_around();
        }
        self.plan_node(&mut pass.plan);
        if self.synced {
            self.plan_strays(&mut pass);
            for service in self.world.take_changed() {
                self.plan_service(&service, now, &mut pass);
                if let Some(ahead) = pass.plan.take_ahead(self.config.portion) {
                    apply(ahead, store, &mut self.rows, &mut pass.outcome);
                }
            }
            self.plan_expired(now, &mut pass);
            self.plan_addresses(&mut pass);
        }
        let plan = std::mem::take(&mut pass.plan);
        apply(plan, store, &mut self.rows, &mut pass.outcome);
        self.finish(pass, now)
    }

    /// Raises the epoch of routes and writes it at once, and nothing else; into maps that nobody has filled yet, it is not
    /// written. What cannot be written is written by the next [`Self::sync`].
    pub fn routes_changed(&mut self, store: &mut impl MapStore) -> Result<(), StoreError> {
        let epoch = &mut self.config.settings.route_epoch;
        *epoch = epoch.wrapping_add(1);
        let mut plan = Plan::default();
        if self.synced {
            self.plan_settings(&mut plan);
        } else {
            self.plan_route_epoch(&mut plan);
        }
        let mut outcome = Outcome::default();
        apply(plan, store, &mut self.rows, &mut outcome);
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

    /// Every object.
    pub fn world(&self) -> &World {
        &self.world
    }

    fn claim(&mut self, service: &ObjectName, wanted: BTreeSet<desired::Claim>) {
        for other in self.claims.update(service, wanted) {
            self.world.touch(other);
        }
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

    /// Forgets backends that have left long enough ago.
    fn plan_expired(&mut self, now: Instant, pass: &mut Pass) {
        let Some(then) = now.checked_sub(self.config.removed_grace) else {
            return;
        };
        for rows in self.image.expire(then, &self.rows) {
            let name = rows
                .name
                .as_ref()
                .and_then(|name| PortName::parse(name_text(name)));
            diff_port(&rows, &self.rows, &mut pass.plan);
            pass.ports.entry(rows.id).or_insert(name);
        }
    }

    /// Addresses as such, which ports of several Services may share: after all of these have said what they want.
    fn plan_addresses(&mut self, pass: &mut Pass) {
        let planned = |id: u32| pass.ports.contains_key(&id);
        for row in self.image.address_rows4(&self.rows, planned) {
            diff_address::<V4>(&row, &mut pass.plan);
        }
        for row in self.image.address_rows6(&self.rows, planned) {
            diff_address::<V6>(&row, &mut pass.plan);
        }
    }

    fn plan_service(&mut self, service: &ObjectName, now: Instant, pass: &mut Pass) {
        let wanted = self.desired(service);
        self.note_standing(service, &wanted);
        for name in self.image.ports_of(service) {
            if let Some(id) = self.image.id(&name)
                && !wanted.iter().any(|port| port.name == name)
            {
                diff_port(&self.image.retire(id, &self.rows), &self.rows, &mut pass.plan);
                pass.ports.insert(id, Some(name));
            }
        }
        let mut problems = problems::of_objects(service, &self.world, &self.claims, self.config.tell_orphans);
        for port in &wanted {
            match self.plan_port(port, now, pass) {
                Ok(compromises) => {
                    let told = compromises
                        .iter()
                        .map(|compromise| self.problem(&port.name, compromise));
                    problems.extend(told);
                    if !compromises.is_empty() {
                        pass.failing.insert(service.clone());
                    }
                }
                Err(error) => {
                    let text = format!("{}; its last good state stays", chain(&error));
                    problems.insert(self.problem(&port.name, &text));
                    pass.failing.insert(service.clone());
                }
            }
        }
        pass.problems.insert(service.clone(), problems);
    }

    fn plan_port(
        &mut self,
        port: &DesiredPort,
        now: Instant,
        pass: &mut Pass,
    ) -> Result<Vec<Compromise>, NoRoom> {
        let id = match self.image.id(&port.name) {
            Some(id) => id,
            None => self.plan_id(&port.name, pass)?,
        };
        pass.ports.insert(id, Some(port.name.clone()));
        let assigned = self.image.assign(id, port, &self.rows);
        if assigned.is_err() {
            self.image.keep(id, &port.name, &self.rows, now);
        }
        let wanted = assigned?;
        diff_port(&wanted, &self.rows, &mut pass.plan);
        Ok(wanted.compromises)
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
        desired::desired(&known.object, self.surroundings())
    }

    fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            node_name: &self.config.node_name,
            world: &self.world,
            claims: &self.claims,
            own_addresses: &self.around.own_addresses,
            forwarding: self.config.forwarding,
            jiffies_per_second: self.config.settings.jiffies_per_second,
            ipv4: self.config.ipv4,
            ipv6: self.config.ipv6,
        }
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
