//! Maps and programs: created or taken up again from their pins, loaded once.

use std::collections::BTreeSet;
use std::thread;

use aya::maps::{MapError, MapInfo};
use aya::programs::{Program, ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use lb_common::layout::{map, program};
use nix::sys::signal::{SigSet, SigmaskHow};
use tokio::task::spawn_blocking;
use tracing::debug;

use super::sizes::{NO_FLAG, Size};
use super::{Access, DataplaneError, KernelStore, Pins, Sizes, flow_hash, verifier};

/// The object as `cargo xtask build` made it; empty when the agent was built without.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sluice.o"));

/// The programs that are attached to devices, and the clock.
#[derive(Debug)]
pub struct Programs {
    ebpf: Ebpf,
    loaded: BTreeSet<&'static str>,
    /// The kernel has refused the XDP program.
    no_xdp: bool,
}

/// What every node needs. The others are loaded when a device is to have them.
const AT_START: [&str; 3] = [program::JIFFIES, program::PRE, program::POST];

/// Creates the maps that are not pinned yet, checks those that are, and loads the programs over them.
/// The verifier is kept busy by another thread, so that a signal is heard meanwhile.
pub async fn load(pins: &Pins, sizes: &Sizes) -> Result<Programs, DataplaneError> {
    let mut ebpf = open(pins, sizes)?;
    let loading = spawn_blocking(move || without_signals(|| load_at_start(&mut ebpf)).map(|()| ebpf));
    let ebpf = loading.await.map_err(|_| DataplaneError::BrokenOff)??;
    Ok(Programs {
        ebpf,
        loaded: AT_START.into(),
        no_xdp: false,
    })
}

/// All at the same time: each keeps the verifier busy for a tenth of a second or more.
fn load_at_start(ebpf: &mut Ebpf) -> Result<(), DataplaneError> {
    thread::scope(|scope| {
        let mut loading = Vec::new();
        for (name, program) in ebpf.programs_mut() {
            if let Some(name) = AT_START.into_iter().find(|wanted| *wanted == name) {
                loading.push((name, scope.spawn(move || load_classifier(name, program))));
            }
        }
        for wanted in AT_START {
            if !loading.iter().any(|(name, _)| *name == wanted) {
                return Err(missing(wanted));
            }
        }
        loading.into_iter().try_for_each(|(_, thread)| {
            thread
                .join()
                .unwrap_or_else(|panicked| std::panic::resume_unwind(panicked))
        })
    })
}

fn load_classifier(name: &'static str, program: &mut Program) -> Result<(), DataplaneError> {
    let program: &mut SchedClassifier = program.try_into().map_err(|_: ProgramError| missing(name))?;
    program.load().map_err(|error| program_error(name, error))
}

/// Does `work` while signals wait. One that comes meanwhile makes the verifier give up, and aya then asks it again with
/// a log, which takes ten times as long.
fn without_signals<T>(work: impl FnOnce() -> T) -> T {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let result = work();
    if let Ok(before) = before {
        // It can fail only for a mask that is none.
        let _restored = before.thread_set_mask();
    }
    result
}

/// The programs once more, for single packets, each loaded when it is asked for: what they write is in small maps of their
/// own, which end with them. What they only read is pinned at `shared`, or in maps of their own as well, of these sizes.
pub fn load_apart(shared: Option<&Pins>, sizes: &Sizes) -> Result<Programs, DataplaneError> {
    if OBJECT.is_empty() {
        return Err(DataplaneError::NoPrograms);
    }
    let wanted = wanted(OBJECT, sizes)?;
    let mut loader = EbpfLoader::new();
    for Wanted { size, shape } in &wanted {
        let pins = shared.filter(|_| map::OF_AGENT.contains(&size.map));
        if let Some(pins) = pins {
            if !pins.map(size.map).exists() {
                // The loader would make it.
                return Err(DataplaneError::Unpinned {
                    path: pins.map(size.map),
                });
            }
            compare_shape(pins, size.map, shape)?;
            loader.map_pin_path(size.map, pins.map(size.map));
        }
        loader.map_max_entries(size.map, size.rows);
    }
    let mut ebpf = loader.load(OBJECT).map_err(|error| load_error(error, &wanted))?;
    flow_hash::draw(&mut ebpf, wanted.iter().map(|wanted| &wanted.size))?;
    Ok(Programs {
        ebpf,
        loaded: BTreeSet::new(),
        no_xdp: false,
    })
}

/// Creates all maps, pinned, and loads and attaches nothing: for tests of what is written into them.
pub fn create_maps(pins: &Pins, sizes: &Sizes) -> Result<(), DataplaneError> {
    let _lock = pins.prepare()?;
    open(pins, sizes).map(drop)
}

impl Programs {
    /// The maps that they were loaded with.
    pub fn store(&self, access: Access) -> Result<KernelStore, DataplaneError> {
        KernelStore::of_object(&self.ebpf, access)
    }

    /// The program of that name, loaded now if it was not yet.
    pub fn get(&mut self, name: &'static str) -> Result<&mut SchedClassifier, DataplaneError> {
        let program: &mut SchedClassifier = typed(&mut self.ebpf, name)?;
        if !self.loaded.contains(name) {
            without_signals(|| program.load()).map_err(|error| program_error(name, error))?;
            self.loaded.insert(name);
        }
        Ok(program)
    }

    /// The XDP program, loaded now if it was not yet. An error without a cause when the kernel has refused it before.
    pub fn xdp(&mut self) -> Result<&mut Xdp, Option<DataplaneError>> {
        let program: &mut Xdp = typed(&mut self.ebpf, program::XDP)?;
        if self.no_xdp {
            return Err(None);
        }
        if !self.loaded.contains(program::XDP) {
            without_signals(|| program.load()).map_err(|error| {
                self.no_xdp = true;
                program_error(program::XDP, error)
            })?;
            self.loaded.insert(program::XDP);
        }
        Ok(program)
    }
}

fn open(pins: &Pins, sizes: &Sizes) -> Result<Ebpf, DataplaneError> {
    if OBJECT.is_empty() {
        return Err(DataplaneError::NoPrograms);
    }
    let sizes = wanted(OBJECT, sizes)?;
    for size in &sizes {
        compare(pins, size)?;
    }
    let mut loader = EbpfLoader::new();
    for Wanted { size, .. } in &sizes {
        loader
            .map_max_entries(size.map, size.rows)
            .map_pin_path(size.map, pins.map(size.map));
    }
    let mut ebpf = loader.load(OBJECT).map_err(|error| load_error(error, &sizes))?;
    flow_hash::draw(&mut ebpf, sizes.iter().map(|wanted| &wanted.size))?;
    Ok(ebpf)
}

/// A map as this version wants it.
struct Wanted {
    size: Size,
    shape: Shape,
}

#[derive(PartialEq, Eq)]
struct Shape {
    kind: u32,
    key: u32,
    value: u32,
    flags: u32,
}

/// Every map of the object, with its size as the flags want it.
fn wanted(object: &[u8], sizes: &Sizes) -> Result<Vec<Wanted>, DataplaneError> {
    let object = aya_obj::Object::parse(object).map_err(|error| DataplaneError::Object(error.into()))?;
    let by_flag = sizes.by_map();
    map::ALL
        .into_iter()
        .map(|name| {
            let definition = object.maps.get(name).ok_or_else(|| DataplaneError::Incomplete {
                what: format!("map {name}"),
            })?;
            let size = by_flag
                .iter()
                .find(|size| size.map == name)
                .copied()
                .unwrap_or(Size::new(name, definition.max_entries(), NO_FLAG));
            let shape = Shape {
                kind: definition.map_type(),
                key: definition.key_size(),
                value: definition.value_size(),
                flags: definition.map_flags(),
            };
            Ok(Wanted { size, shape })
        })
        .collect()
}

/// aya takes up whatever is pinned without a look at it, so we look.
fn compare(pins: &Pins, wanted: &Wanted) -> Result<(), DataplaneError> {
    let Wanted {
        size: Size { map, rows, flag },
        shape,
    } = wanted;
    let path = pins.map(map);
    if !path.exists() {
        return Ok(());
    }
    let pinned = compare_shape(pins, map, shape)?;
    if pinned != *rows {
        return Err(DataplaneError::Resized {
            map,
            path,
            pinned,
            wanted: *rows,
            flag,
        });
    }
    Ok(())
}

/// Whether a pinned map has the rows that this version wants; how many it has room for.
fn compare_shape(pins: &Pins, map: &'static str, shape: &Shape) -> Result<u32, DataplaneError> {
    let path = pins.map(map);
    let error = |source| DataplaneError::Map {
        map: path.display().to_string(),
        source,
    };
    let info = MapInfo::from_pin(&path).map_err(error)?;
    let kind = info.map_type().map_err(error)? as u32;
    let pinned = Shape {
        kind,
        key: info.key_size(),
        value: info.value_size(),
        flags: info.map_flags(),
    };
    if pinned != *shape {
        return Err(DataplaneError::Reshaped {
            map,
            path,
            pinned: pinned.to_string(),
            wanted: shape.to_string(),
        });
    }
    Ok(info.max_entries())
}

/// The program of that name, if it is of that kind.
fn typed<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, DataplaneError>
where
    &'a mut P: TryFrom<&'a mut Program>,
{
    let program = ebpf.program_mut(name).and_then(|program| program.try_into().ok());
    program.ok_or_else(|| missing(name))
}

fn missing(program: &str) -> DataplaneError {
    DataplaneError::Incomplete {
        what: format!("program {program}"),
    }
}

fn load_error(error: EbpfError, sizes: &[Wanted]) -> DataplaneError {
    match error {
        EbpfError::MapError(MapError::CreateError { name, io_error }) => {
            let size = sizes
                .iter()
                .map(|wanted| wanted.size)
                .find(|size| size.map == name);
            let (rows, flag) = size.map_or((0, NO_FLAG), |size| (size.rows, size.flag));
            DataplaneError::CreateMap {
                map: name,
                rows,
                flag,
                source: io_error,
            }
        }
        EbpfError::MapError(MapError::PinError { name, error }) => {
            let map = name.unwrap_or_default();
            DataplaneError::Map {
                source: MapError::PinError { name: None, error },
                map,
            }
        }
        error => DataplaneError::Object(error),
    }
}

fn program_error(name: &'static str, error: ProgramError) -> DataplaneError {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            debug!(program = name, "verifier log:\n{log}");
            DataplaneError::Verifier {
                program: name.to_owned(),
                summary: verifier::summary(&log),
                cause: io_error,
            }
        }
        source => DataplaneError::Program {
            program: name.to_owned(),
            action: "loaded",
            source,
        },
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            kind,
            key,
            value,
            flags,
        } = self;
        write!(
            f,
            "keys of {key} and values of {value} bytes (map type {kind}, flags {flags:#x})"
        )
    }
}
