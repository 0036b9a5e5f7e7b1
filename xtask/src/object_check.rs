//! What is wrong with a BPF object, told before the kernel or libbpf refuse it with fewer words.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SymbolKind};

/// Loops over single bytes that the compiler calls for large values: slow, and hard on the verifier.
/// bpf-linker keeps them in each object, which does no harm as long as nothing calls them.
const BYTE_LOOPS: [&str; 5] = ["bcmp", "memcmp", "memcpy", "memmove", "memset"];

/// Where rustc puts what only a panic reaches.
const COLD: &str = ".text.unlikely";

/// The size of an instruction.
const INSTRUCTION: u8 = 8;
/// `BPF_JMP | BPF_CALL`, with the source register telling that a function of the object is target.
const CALL: u8 = 0x85;
const CALL_OF_FUNCTION: u8 = 1;

/// A place in the code: the index of a section, and how far from its start.
type Place = (usize, u64);

/// Everything that is wrong with this object, one sentence each.
pub(crate) fn check(bytes: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(bytes)?;
    let mut complaints = BTreeSet::new();

    if file
        .section_by_name(".BTF")
        .is_none_or(|section| section.size() == 0)
    {
        complaints.insert("section .BTF is missing: no type information for maps and programs".to_owned());
    }
    for symbol in file.symbols().filter(object::ObjectSymbol::is_undefined) {
        let name = symbol.name().unwrap_or_default();
        if !name.is_empty() {
            complaints.insert(format!("symbol {name} is not defined"));
        }
    }
    let mut cold = BTreeSet::new();
    for section in file.sections() {
        let name = section.name().unwrap_or_default();
        if name.starts_with(COLD) && section.size() > 0 {
            cold.insert(section.index().0);
            complaints.insert(format!("section {name} is there: a panic can be reached"));
        }
    }
    let functions = Functions::of(&file);
    for Call { from, to } in calls(&file)? {
        let Some(target) = functions.at(to) else { continue };
        let caller = functions.at(from).unwrap_or("unknown code");
        if BYTE_LOOPS.contains(&target) && !BYTE_LOOPS.contains(&caller) {
            complaints.insert(format!("{caller} calls {target}: build large values by words"));
        } else if cold.contains(&to.0) && !cold.contains(&from.0) {
            complaints.insert(format!("{caller} can panic, by {target}"));
        }
    }
    Ok(complaints.into_iter().collect())
}

/// The functions of an object by the place they begin at.
struct Functions<'a>(BTreeMap<Place, (u64, &'a str)>);

impl<'a> Functions<'a> {
    fn of(file: &object::File<'a>) -> Self {
        let functions = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text);
        let named = functions.filter_map(|symbol| {
            let place = (symbol.section_index()?.0, symbol.address());
            Some((place, (symbol.size(), symbol.name().ok()?)))
        });
        Self(named.collect())
    }

    fn at(&self, place: Place) -> Option<&'a str> {
        let (start, (size, name)) = self.0.range(..=place).next_back()?;
        let inside = start.0 == place.0 && place.1 < start.1 + size;
        inside.then_some(*name)
    }
}

/// One call from function to function.
struct Call {
    from: Place,
    to: Place,
}

/// The calls in all code.
fn calls(file: &object::File<'_>) -> Result<Vec<Call>> {
    let mut calls = Vec::new();
    for section in file
        .sections()
        .filter(|section| section.kind() == object::SectionKind::Text)
    {
        let index = section.index().0;
        let relocations: BTreeMap<u64, RelocationTarget> = section
            .relocations()
            .map(|(offset, relocation)| (offset, relocation.target()))
            .collect();
        for (number, instruction) in section
            .data()?
            .as_chunks::<{ INSTRUCTION as usize }>()
            .0
            .iter()
            .enumerate()
        {
            let [code, registers, _, _, immediate @ ..] = *instruction;
            if code != CALL || registers >> 4 != CALL_OF_FUNCTION {
                continue;
            }
            let from = (index, number as u64 * u64::from(INSTRUCTION));
            // Only calls into other sections and of global symbols are left to be relocated.
            let base = match relocations.get(&from.1) {
                Some(RelocationTarget::Symbol(symbol)) => {
                    let symbol = file.symbol_by_index(*symbol)?;
                    symbol
                        .section_index()
                        .map(|section| (section.0, symbol.address()))
                }
                _ => Some(from),
            };
            // The distance is counted in instructions, from the next one.
            let distance = (i64::from(i32::from_le_bytes(immediate)) + 1) * i64::from(INSTRUCTION);
            let to = base.and_then(|(section, start)| Some((section, start.checked_add_signed(distance)?)));
            calls.extend(to.map(|to| Call { from, to }));
        }
    }
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use object::{
        Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolScope,
        write::{Object, Relocation, SectionId, StandardSection, Symbol, SymbolId, SymbolSection},
    };

    use super::*;

    const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];

    fn call(immediate: i32) -> [u8; 8] {
        let [a, b, c, d] = immediate.to_le_bytes();
        [0x85, 0x10, 0, 0, a, b, c, d]
    }

    /// An object with a program `lb_pre` in section `classifier`, and a place for more functions.
    struct Sample {
        object: Object<'static>,
        program: SectionId,
    }

    impl Sample {
        fn new(code: &[[u8; 8]]) -> Self {
            let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
            let program = object.add_section(Vec::new(), b"classifier".to_vec(), SectionKind::Text);
            let btf = object.add_section(Vec::new(), b".BTF".to_vec(), SectionKind::Other);
            object.append_section_data(btf, &[1], 1);
            let mut sample = Self { object, program };
            sample.function("lb_pre", program, code);
            sample
        }

        fn function(&mut self, name: &str, section: SectionId, code: &[[u8; 8]]) -> SymbolId {
            let id = self.symbol(name, SymbolSection::Section(section));
            self.object.add_symbol_data(id, section, code.as_flattened(), 8);
            id
        }

        fn symbol(&mut self, name: &str, section: SymbolSection) -> SymbolId {
            self.object.add_symbol(Symbol {
                name: name.as_bytes().to_vec(),
                value: 0,
                size: 0,
                kind: SymbolKind::Text,
                scope: SymbolScope::Linkage,
                weak: false,
                section,
                flags: SymbolFlags::None,
            })
        }

        fn relocate_first_call(&mut self, symbol: SymbolId) {
            let flags = object::RelocationFlags::Elf {
                r_type: object::elf::R_BPF_64_32,
            };
            self.object
                .add_relocation(
                    self.program,
                    Relocation {
                        offset: 0,
                        symbol,
                        addend: 0,
                        flags,
                    },
                )
                .unwrap();
        }

        fn complaints(&self) -> Vec<String> {
            check(&self.object.write().unwrap()).unwrap()
        }
    }

    #[test]
    fn good_object_passes() {
        let mut sample = Sample::new(&[EXIT]);
        let text = sample.object.section_id(StandardSection::Text);
        // Kept by the linker, target by nobody.
        sample.function("memset", text, &[EXIT]);
        assert!(sample.complaints().is_empty());
    }

    #[test]
    fn call_of_memset_in_another_section_is_found() {
        let mut sample = Sample::new(&[call(-1), EXIT]);
        let text = sample.object.section_id(StandardSection::Text);
        let memset = sample.function("memset", text, &[EXIT]);
        sample.relocate_first_call(memset);
        assert_eq!(
            sample.complaints(),
            ["lb_pre calls memset: build large values by words"]
        );
    }

    #[test]
    fn call_by_section_symbol_and_distance_is_found() {
        let mut sample = Sample::new(&[call(0), EXIT]);
        let text = sample.object.section_id(StandardSection::Text);
        sample.function("other", text, &[EXIT]);
        sample.function("memcpy", text, &[EXIT]);
        let section = sample.object.section_symbol(text);
        sample.relocate_first_call(section);
        assert_eq!(
            sample.complaints(),
            ["lb_pre calls memcpy: build large values by words"]
        );
    }

    #[test]
    fn call_without_relocation_is_found() {
        let mut sample = Sample::new(&[call(1), EXIT]);
        let program = sample.program;
        sample.function("memcmp", program, &[EXIT]);
        assert_eq!(
            sample.complaints(),
            ["lb_pre calls memcmp: build large values by words"]
        );
    }

    #[test]
    fn panic_path_is_found_and_its_caller_named() {
        let mut sample = Sample::new(&[call(-1), EXIT]);
        let cold = sample
            .object
            .add_section(Vec::new(), b".text.unlikely.".to_vec(), SectionKind::Text);
        let panic = sample.function("panic_bounds_check", cold, &[EXIT]);
        sample.relocate_first_call(panic);
        let expected = [
            "lb_pre can panic, by panic_bounds_check",
            "section .text.unlikely. is there: a panic can be reached",
        ];
        assert_eq!(sample.complaints(), expected);
    }

    #[test]
    fn undefined_symbol_is_found() {
        let mut sample = Sample::new(&[call(-1), EXIT]);
        let missing = sample.symbol("elsewhere", SymbolSection::Undefined);
        sample.relocate_first_call(missing);
        assert_eq!(sample.complaints(), ["symbol elsewhere is not defined"]);
    }

    #[test]
    fn missing_type_information_is_found() {
        let object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
        let complaints = check(&object.write().unwrap()).unwrap();
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].contains(".BTF"), "{complaints:?}");
    }
}
