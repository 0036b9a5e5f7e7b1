//! How fast the agent is: from its start to attached programs, from an edit of a manifest to the row in the map.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::median;
use crate::family::Family;
use crate::manifests::{Condition, HTTP};
use crate::maps::Protocol;
use crate::world::{VIP, World, endpoints_of, web, write_service};

const STARTS: usize = 5;
const EDITS: usize = 21;

/// Milliseconds of one step.
#[derive(Debug, Serialize)]
pub struct Timing {
    /// What was timed.
    pub name: String,
    /// The median.
    pub median_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

/// Measures both.
pub fn measure() -> Result<Vec<Timing>> {
    let mut world = World::new(&[0])?;
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        world.agent.stop()?;
        world.agent.command(&world.topology.node1, &["cleanup"])?;
        starts.push(world.agent.start(&world.topology.node1, &[])?);
    }
    let edits = (0..EDITS)
        .map(|number| edit(&world, number % 2))
        .collect::<Result<_>>()?;
    Ok(vec![
        timing("agent-start-to-attached", starts),
        timing("manifest-edit-to-map", edits),
    ])
}

/// Moves the usual service to another pod; how long until its front end has it.
fn edit(world: &World, pod: usize) -> Result<Duration> {
    let front_end = SocketAddr::new(VIP.of(Family::V4), HTTP.port);
    let expected = endpoints_of(&[pod + 1], Family::V4, HTTP.target);
    let begin = Instant::now();
    write_service(&world.agent, &web(), &[(pod + 1, Condition::Ready)])?;
    world.wait_for(front_end, Protocol::Tcp, &expected)?;
    Ok(begin.elapsed())
}

fn timing(name: &str, times: Vec<Duration>) -> Timing {
    let times: Vec<_> = times
        .into_iter()
        .map(|time| time.as_secs_f64() * 1000.0)
        .collect();
    let max_ms = times.iter().copied().fold(0.0, f64::max);
    Timing {
        name: name.to_owned(),
        median_ms: median(times),
        max_ms,
    }
}
