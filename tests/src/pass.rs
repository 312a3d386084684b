//! The XDP program that passes every frame.
//!
//! A veth delivers what the other end sends with XDP_TX only when it has an XDP program itself: with GRO alone, the frames
//! lie in its ring until something else wakes it (drivers/net/veth.c, `veth_xdp_flush`, Linux 6.18). A redirect is content
//! with GRO (`veth_xdp_xmit`).

use std::{fs, path::Path};

use anyhow::Result;
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, Symbol, SymbolSection},
};

use crate::{node::Node, process::run};

/// `r0 = XDP_PASS; exit`
const CODE: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

/// Attaches the program to an interface, in the driver; `dir` is for its object file.
pub(crate) fn attach(node: &Node, interface: &str, dir: &Path) -> Result<()> {
    let file = dir.join("pass.o");
    fs::write(&file, elf()?)?;
    let attach = ["link", "set", "dev", interface, "xdpdrv", "object"];
    run(node.command("ip").args(attach).arg(file).args(["section", "xdp"]), "").map(drop)
}

fn elf() -> Result<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let section = object.add_section(Vec::new(), b"xdp".to_vec(), SectionKind::Text);
    let value = object.append_section_data(section, &CODE, 8);
    object.add_symbol(Symbol {
        name: b"pass".to_vec(),
        value,
        size: CODE.len() as u64,
        kind: SymbolKind::Text,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
    Ok(object.write()?)
}
