//! Regions of slots: what they hold, and which of them a front end leads to.

use std::sync::Arc;

use lb_common::{Slot, SlotRange};

use super::family::FamilyImage;
use super::{Compromise, Layout, NoRoom, maglev, spread};
use crate::desired::{Half, Spread, Target, Way};
use crate::store::{FamilyTables, Rows, Table as _};

/// A region that a port has.
#[derive(Debug)]
pub(super) struct Region<A> {
    pub(super) range: SlotRange,
    /// What it holds, if this agent has written it.
    content: Option<Content<A>>,
}

/// Slots, and what they were made from. Making a large table takes milliseconds.
#[derive(Clone, Debug)]
struct Content<A> {
    recipe: Recipe<A>,
    slots: Arc<[u32]>,
}

/// All that slots depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Recipe<A> {
    kind: Kind,
    members: Vec<Member<A>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Slots,
    Maglev { size: u32, seed: u64 },
}

/// An endpoint in a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member<A> {
    target: Target<A>,
    index: u32,
    weight: u32,
}

/// The regions of one port that have been found in this pass, with what they hold.
#[derive(Debug)]
pub(super) struct Found<A> {
    regions: Vec<(SlotRange, Content<A>)>,
}

// === impl FamilyImage ===

impl<F: FamilyTables> FamilyImage<F> {
    /// The region for a way: one that holds just what it should already, or a new one.
    pub(super) fn assign_region(
        &mut self,
        id: u32,
        half: &Half<F>,
        way: Way,
        rows: &Rows,
        layout: &mut Layout<'_>,
        found: &mut Found<F::Addr>,
    ) -> Result<SlotRange, NoRoom> {
        let members = self.members(id, half, way);
        if members.is_empty() {
            return Ok(SlotRange::default());
        }
        let mut wanted = None;
        for kind in kinds(way, &members, layout) {
            let recipe = Recipe {
                kind,
                members: members.clone(),
            };
            let (wanted, count) = (wanted.get_or_insert(kind.size()), kind.size());
            if let Some(range) = self.place(id, recipe, rows, layout, found) {
                if *wanted != count {
                    layout.compromises.push(Compromise {
                        map: F::Slots::NAME,
                        wanted: *wanted,
                        got: count,
                    });
                }
                return Ok(range);
            }
        }
        Err(NoRoom::Slots {
            map: F::Slots::NAME,
            count: spread::slots(&weights(&members)).len(),
        })
    }

    /// Where slots of this recipe are, or can be.
    fn place(
        &mut self,
        id: u32,
        recipe: Recipe<F::Addr>,
        rows: &Rows,
        layout: &mut Layout<'_>,
        found: &mut Found<F::Addr>,
    ) -> Option<SlotRange> {
        let same = |content: &Content<_>| content.recipe == recipe;
        if let Some((range, _)) = found.regions.iter().find(|(_, content)| same(content)) {
            return Some(*range);
        }
        let regions = self
            .ports
            .get(&id)
            .map(|port| port.regions.as_slice())
            .unwrap_or_default();
        let mut made = regions.iter().filter_map(|region| region.content.as_ref());
        let content = match made.find(|content| same(content)) {
            Some(content) => content.clone(),
            None if self.may_be_placed(id, recipe.kind) => Content::new(recipe),
            None => return None,
        };
        let regions = &mut self.ports.entry(id).or_default().regions;
        let held = regions
            .iter_mut()
            .find(|region| holds::<F>(region.range, &content.slots, rows));
        let range = if let Some(region) = held {
            region.content = Some(content.clone());
            region.range
        } else {
            let count = u32::try_from(content.slots.len()).ok()?;
            let range = SlotRange {
                base: self.slots.take(count)?,
                count,
                generation: layout.generations.next(),
            };
            regions.push(Region {
                range,
                content: Some(content.clone()),
            });
            range
        };
        found.regions.push((range, content));
        Some(range)
    }

    /// Whether it is worth the time to make such a table.
    fn may_be_placed(&self, id: u32, kind: Kind) -> bool {
        let Kind::Maglev { size, seed: _ } = kind else {
            return true;
        };
        let mut regions = self.ports.get(&id).into_iter().flat_map(|port| &port.regions);
        self.slots.fits(size) || regions.any(|region| region.range.count == size)
    }

    fn members(&self, id: u32, half: &Half<F>, way: Way) -> Vec<Member<F::Addr>> {
        let Some(port) = self.ports.get(&id) else {
            return Vec::new();
        };
        let member = |(target, weight): &(Target<F::Addr>, u32)| {
            Some(Member {
                target: *target,
                index: *port.backends.get(target)?,
                weight: *weight,
            })
        };
        half.members(way.policy).iter().filter_map(member).collect()
    }
}

impl<A> Region<A> {
    /// One that another agent has written.
    pub(super) fn adopted(range: SlotRange) -> Self {
        Self { range, content: None }
    }
}

impl<A: lb_common::addr::Address> Content<A> {
    fn new(recipe: Recipe<A>) -> Self {
        let places = match recipe.kind {
            Kind::Slots => spread::slots(&weights(&recipe.members)),
            Kind::Maglev { size, seed } => {
                let members: Vec<_> = recipe
                    .members
                    .iter()
                    .map(|member| (member.target, member.weight))
                    .collect();
                maglev::table(size, seed, &members)
            }
        };
        let index = |place: &u32| recipe.members.get(*place as usize).map(|member| member.index);
        let slots = places.iter().filter_map(index).collect();
        Self { recipe, slots }
    }
}

impl<A> Found<A> {
    /// The regions with their slots.
    pub(super) fn into_slots(self) -> Vec<(SlotRange, Arc<[u32]>)> {
        let slots = self.regions.into_iter();
        slots.map(|(range, content)| (range, content.slots)).collect()
    }
}

impl<A> Default for Found<A> {
    fn default() -> Self {
        Self { regions: Vec::new() }
    }
}

impl Kind {
    /// The size of the table; 0 for plain slots.
    fn size(self) -> u32 {
        match self {
            Self::Slots => 0,
            Self::Maglev { size, seed: _ } => size,
        }
    }
}

/// What to try, the best first. A single endpoint needs no table.
fn kinds<A>(way: Way, members: &[Member<A>], layout: &Layout<'_>) -> Vec<Kind> {
    let mut kinds = Vec::new();
    if way.spread == Spread::Maglev && members.len() > 1 {
        let weights = members.iter().map(|member| member.weight);
        let seed = layout.seed;
        kinds.extend(maglev::sizes(weights, layout.max_table).map(|size| Kind::Maglev { size, seed }));
    }
    kinds.push(Kind::Slots);
    kinds
}

fn weights<A>(members: &[Member<A>]) -> Vec<u32> {
    members.iter().map(|member| member.weight).collect()
}

/// Whether the maps hold just these backends in a region.
pub fn holds<F: FamilyTables>(region: SlotRange, indices: &[u32], rows: &Rows) -> bool {
    region.count as usize == indices.len()
        && (region.base..).zip(indices).all(|(slot, index)| {
            let row = Slot {
                generation: region.generation,
                backend: *index,
            };
            rows.get::<F::Slots>(&slot) == Some(&row)
        })
}
