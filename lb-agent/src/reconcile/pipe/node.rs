//! The node's own rows, and what of the node matters to Services.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lb_common::{Settings, SettingsFlags, V4, V6};

use super::{Around, Config, Pipe};
use crate::desired::node::{NodeRows, devices, node_rows, service_prefixes};
use crate::desired::{self, seed_of_words, seed_words};
use crate::image::Tables;
use crate::model::HostState;
use crate::reconcile::diff_node::{diff_devices, diff_gone_ranges, diff_node, diff_settings};
use crate::reconcile::plan::Plan;
use crate::store::{FamilyTables, SettingsTable};

// === impl Pipe ===

impl Pipe {
    /// Takes note of what is around Services, and makes this pass look at those that depend on what has changed.
    pub(super) fn look_around(&mut self) {
        let addresses = self.host.iter().flat_map(|host| &host.addresses);
        let own_addresses: BTreeSet<IpAddr> = addresses.map(|address| address.ip).collect();
        let node = self.world.node(&self.config.node_name);
        let node_ips = node.map(|node| node.internal_ips.clone()).unwrap_or_default();
        let zone = node.and_then(|node| node.zone.clone());
        let before = std::mem::replace(
            &mut self.around,
            Around {
                own_addresses,
                node_ips,
                zone,
            },
        );
        // Kept when what names the cluster goes away.
        self.config.settings.hash_seed = seed_words(self.seed());
        let tables = Tables {
            seed: self.seed(),
            max_size: self.config.max_table,
        };
        let other_tables = self.image.make_tables_by(tables);
        let moved: BTreeSet<_> = before
            .own_addresses
            .symmetric_difference(&self.around.own_addresses)
            .collect();
        let other_node = before.node_ips != self.around.node_ips;
        let other_zone = before.zone != self.around.zone;
        let changed = self.world.services().filter(|service| {
            let mut vips = service.cluster_ips.iter().chain(&service.load_balancer_ips);
            let ranged = other_node && !service.source_ranges.is_empty();
            other_tables || other_zone || ranged || vips.any(|ip| moved.contains(ip))
        });
        let changed: Vec<_> = changed.map(|service| service.name.clone()).collect();
        for service in changed {
            self.world.touch(service);
        }
    }

    fn seed(&self) -> u64 {
        let configured = self.config.seed.or_else(|| desired::cluster_seed(&self.world));
        configured.unwrap_or_else(|| seed_of_words(self.config.settings.hash_seed))
    }

    pub(super) fn plan_node(&self, plan: &mut Plan) {
        if let Some(host) = &self.host {
            diff_devices(&devices(host), &self.rows, plan);
        }
        if !self.synced {
            return;
        }
        let v4 = self.host.as_ref().filter(|_| self.config.ipv4);
        let v4 = v4.map(|host| self.node_rows::<V4>(host));
        let v6 = self.host.as_ref().filter(|_| self.config.ipv6);
        let v6 = v6.map(|host| self.node_rows::<V6>(host));
        if let Some(rows) = &v4 {
            diff_node(rows, &self.rows, plan);
        }
        if let Some(rows) = &v6 {
            diff_node(rows, &self.rows, plan);
        }
        self.plan_settings(plan);
        if let Some(rows) = &v4 {
            diff_gone_ranges::<V4>(&rows.ranges, &self.rows, plan);
        }
        if let Some(rows) = &v6 {
            diff_gone_ranges::<V6>(&rows.ranges, &self.rows, plan);
        }
    }

    fn node_rows<F: FamilyTables>(&self, host: &HostState) -> NodeRows<F> {
        let Config {
            node_name, prefixes, ..
        } = &self.config;
        node_rows(host, &self.world, node_name, prefixes)
    }

    pub(super) fn plan_settings(&self, plan: &mut Plan) {
        let (node_port_min, node_port_max) = self.node_ports().unwrap_or((1, 0));
        let wanted = Settings {
            node_port_min,
            node_port_max,
            hash_seed: seed_words(self.seed()),
            flags: self.config.settings.flags | self.flags(),
            ..self.config.settings
        };
        diff_settings(wanted, &self.rows, plan);
    }

    /// The epoch of routes alone, in settings that an agent before this one has written.
    pub(super) fn plan_route_epoch(&self, plan: &mut Plan) {
        if let Some(before) = self.rows.get::<SettingsTable>(&0)
            && *before != Settings::default()
        {
            let wanted = Settings {
                route_epoch: self.config.settings.route_epoch,
                ..*before
            };
            diff_settings(wanted, &self.rows, plan);
        }
    }

    /// The flags of settings that say which lists count.
    fn flags(&self) -> u32 {
        let node = self.world.node(&self.config.node_name);
        let pods =
            !self.config.prefixes.cluster.is_empty() || node.is_some_and(|node| !node.pod_cidrs.is_empty());
        let flags = [
            (SettingsFlags::DETECTS_PODS, pods && self.host.is_some()),
            (
                SettingsFlags::SERVICE_CIDRS,
                !service_prefixes(&self.world, &self.config.prefixes).is_empty() && self.host.is_some(),
            ),
        ];
        let set = flags.into_iter().filter(|(_, set)| *set);
        set.fold(0, |flags, (flag, _)| flags | flag)
    }
}
