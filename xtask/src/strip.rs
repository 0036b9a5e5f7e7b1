//! BPF objects as they are loaded: with the types of maps and functions (BTF), without what describes source lines.
//!
//! DWARF is most of an object, and nobody who loads it reads it. Of line information aya keeps a copy of all for each
//! function while it loads: more than 100 MiB. What the linker left, with both, is for debuggers.

use anyhow::{Context as _, Result, ensure};
use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;

const DWARF: &str = ".debug_";
const BTF_EXT: &str = ".BTF.ext";
/// LLVM keeps the names of sections among those of symbols; what writes the object again wants them apart.
const SECTION_NAMES: &str = ".shstrtab";

/// `struct btf_ext_header` (linux, Documentation/bpf/btf.rst): where its magic number and
/// `line_info_len` are.
const MAGIC: (usize, [u8; 2]) = (0, 0xeb9f_u16.to_le_bytes());
const LINE_INFO_LEN: usize = 20;

/// The object without lines.
pub(crate) fn without_lines(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object).context("the object cannot be taken apart")?;
    for section in &mut builder.sections {
        let name = section.name.to_string();
        let about = name.trim_start_matches(".rel");
        section.delete = about.starts_with(DWARF) || (about == BTF_EXT && about != name);
        if name == BTF_EXT
            && let SectionData::Data(data) = &mut section.data
        {
            forget_lines(data.to_mut())?;
        }
    }
    builder.delete_orphans();
    let names = builder.sections.add();
    names.name = SECTION_NAMES.into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    builder
        .write(&mut stripped)
        .context("the object cannot be put together again")?;
    Ok(stripped)
}

/// Says in the header of `.BTF.ext` that there is no information about lines.
fn forget_lines(ext: &mut [u8]) -> Result<()> {
    let (at, magic) = MAGIC;
    ensure!(
        ext.get(at..at + magic.len()) == Some(&magic[..]),
        "{BTF_EXT} has no header"
    );
    let length = ext.get_mut(LINE_INFO_LEN..LINE_INFO_LEN + size_of::<u32>());
    length.with_context(|| format!("{BTF_EXT} is too short"))?.fill(0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_forgotten_and_nothing_else() {
        let mut ext: Vec<u8> = (0..40).collect();
        ext[..2].copy_from_slice(&MAGIC.1);
        let before = ext.clone();
        forget_lines(&mut ext).unwrap();
        assert_eq!(ext[LINE_INFO_LEN..LINE_INFO_LEN + 4], [0; 4]);
        assert_eq!(ext[..LINE_INFO_LEN], before[..LINE_INFO_LEN]);
        assert_eq!(ext[LINE_INFO_LEN + 4..], before[LINE_INFO_LEN + 4..]);
    }

    #[test]
    fn what_is_no_header_is_an_error() {
        forget_lines(&mut [0; 40]).unwrap_err();
        let mut short = MAGIC.1;
        forget_lines(&mut short).unwrap_err();
    }
}
