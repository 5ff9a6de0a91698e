//! What there is in a module, as far as a canister's host cares, and what is added to it.

use std::collections::{BTreeMap, BTreeSet};

use wasm_encoder::{CodeSection, ExportKind, ExportSection, RawSection};
use wasmparser::{
    CodeSectionReader, ExternalKind, FunctionBody, Operator, Parser, Payload, TypeRef,
};

use super::{MetadataVisibility, ModuleError, cost::NOPS_BEFORE_HEAVIEST};

pub const MEMORY: &str = "\u{1}memory";
pub const TABLE: &str = "\u{1}table";
pub const START: &str = "\u{1}start";
pub const GLOBAL: &str = "\u{1}global ";

/// Limits of the interface specification, which calls methods `<name>` and metadata sections
/// `icp:public <name>` and `icp:private <name>`.
const FUNCTIONS_MAX: u64 = 50_000;
const GLOBALS_MAX: u64 = 1_000;
const METHODS_MAX: u64 = 1_000;
const METHOD_NAMES_BYTES_MAX: u64 = 20_000;
const METADATA_MAX: u64 = 16;
const METADATA_BYTES_MAX: u64 = 1 << 20;
/// The compiler's time grows with the square of this: a second and a half at the most.
const NESTED_MAX: u64 = 10_000;

const PLAIN_ENTRY_POINTS: [&str; 7] = [
    "canister_init",
    "canister_pre_upgrade",
    "canister_post_upgrade",
    "canister_inspect_message",
    "canister_heartbeat",
    "canister_global_timer",
    "canister_on_low_wasm_memory",
];
const METHOD_PREFIXES: [&str; 3] = [
    "canister_update ",
    "canister_query ",
    "canister_composite_query ",
];

#[derive(Default)]
pub struct Shape {
    pub entry_points: BTreeSet<String>,
    pub start: Option<u32>,
    pub mutable_globals: Vec<u32>,
    pub metadata: BTreeMap<String, (MetadataVisibility, Vec<u8>)>,
    /// Code changes tables or drops segments, which cannot be undone in an instance.
    pub wears_out: bool,
    /// Code can ask for the certificate of its data.
    pub asks_for_certificate: bool,
    has_memory: bool,
    has_table: bool,
    functions: u64,
    globals: u64,
    metadata_bytes: u64,
    /// Places in the module of operators that cost more than the engine's table can say.
    heaviest: Vec<usize>,
}

impl Shape {
    pub fn of(wasm: &[u8]) -> Result<Self, ModuleError> {
        let mut shape = Self::default();
        for payload in Parser::new(0).parse_all(wasm) {
            shape.note(payload.map_err(invalid)?)?;
        }
        shape.check_entry_points()?;
        at_most("functions", shape.functions, FUNCTIONS_MAX)?;
        at_most("globals", shape.globals, GLOBALS_MAX)?;
        at_most(
            "metadata sections",
            shape.metadata.len() as u64,
            METADATA_MAX,
        )?;
        at_most(
            "bytes of metadata",
            shape.metadata_bytes,
            METADATA_BYTES_MAX,
        )?;
        Ok(shape)
    }

    fn note(&mut self, payload: Payload) -> Result<(), ModuleError> {
        match payload {
            Payload::Version {
                encoding: wasmparser::Encoding::Component,
                ..
            } => return Err(ModuleError::Invalid("it is a component".into())),
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.map_err(invalid)?;
                    if !matches!(import.ty, TypeRef::Func(_) | TypeRef::FuncExact(_)) {
                        return Err(ModuleError::UnknownImport {
                            module: import.module.into(),
                            name: import.name.into(),
                        });
                    }
                    self.asks_for_certificate |= import.name.starts_with("data_certificate");
                }
            }
            Payload::FunctionSection(section) => self.functions = u64::from(section.count()),
            Payload::MemorySection(section) => {
                for memory in section {
                    self.has_memory = true;
                    if memory.map_err(invalid)?.memory64 {
                        return Err(ModuleError::Memory64);
                    }
                }
            }
            Payload::TableSection(section) => self.has_table = section.count() > 0,
            Payload::GlobalSection(section) => {
                self.globals = u64::from(section.count());
                for (index, global) in (0..).zip(section) {
                    if global.map_err(invalid)?.ty.mutable {
                        self.mutable_globals.push(index);
                    }
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.map_err(invalid)?;
                    if export.kind == ExternalKind::Func && export.name.starts_with("canister_") {
                        self.entry_points.insert(export.name.into());
                    }
                }
            }
            Payload::StartSection { func, .. } => self.start = Some(func),
            Payload::CodeSectionEntry(body) => self.note_body(&body)?,
            Payload::CustomSection(section) => {
                self.note_metadata(section.name(), section.data())?
            }
            _ => {}
        }
        Ok(())
    }

    fn note_body(&mut self, body: &FunctionBody) -> Result<(), ModuleError> {
        let mut operators = body.get_operators_reader().map_err(invalid)?;
        let mut nested = 0;
        while !operators.eof() {
            let (operator, at) = operators.read_with_offset().map_err(invalid)?;
            match operator {
                Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => {
                    nested += 1;
                    at_most("nested blocks", nested, NESTED_MAX)?;
                }
                // The last one ends the function.
                Operator::End => nested = nested.saturating_sub(1),
                Operator::MemoryGrow { .. } => self.heaviest.push(at),
                Operator::TableGrow { .. }
                | Operator::DataDrop { .. }
                | Operator::ElemDrop { .. } => {
                    self.heaviest.push(at);
                    self.wears_out = true;
                }
                Operator::TableSet { .. }
                | Operator::TableFill { .. }
                | Operator::TableCopy { .. }
                | Operator::TableInit { .. } => self.wears_out = true,
                _ => {}
            }
        }
        Ok(())
    }

    fn note_metadata(&mut self, section: &str, data: &[u8]) -> Result<(), ModuleError> {
        let Some(rest) = section.strip_prefix("icp:") else {
            return Ok(());
        };
        let (visibility, name) = if let Some(name) = rest.strip_prefix("public ") {
            (MetadataVisibility::Public, name)
        } else if let Some(name) = rest.strip_prefix("private ") {
            (MetadataVisibility::Private, name)
        } else {
            return Err(ModuleError::UnknownSection(section.into()));
        };
        self.metadata_bytes += (name.len() + data.len()) as u64;
        match self
            .metadata
            .insert(name.into(), (visibility, data.to_vec()))
        {
            Some(_) => Err(ModuleError::MetadataTwice(name.into())),
            None => Ok(()),
        }
    }

    fn check_entry_points(&self) -> Result<(), ModuleError> {
        let mut methods = BTreeSet::new();
        for name in &self.entry_points {
            let method = METHOD_PREFIXES
                .iter()
                .find_map(|prefix| name.strip_prefix(prefix));
            match method {
                Some(method) if !methods.insert(method) => {
                    return Err(ModuleError::ExportedTwice(method.into()));
                }
                Some(_) => {}
                None if PLAIN_ENTRY_POINTS.contains(&name.as_str()) => {}
                None => return Err(ModuleError::UnknownExport(name.clone())),
            }
        }
        let bytes = methods.iter().map(|method| method.len() as u64).sum();
        at_most("methods", methods.len() as u64, METHODS_MAX)?;
        at_most("bytes of method names", bytes, METHOD_NAMES_BYTES_MAX)
    }

    /// The module with its table, memory and mutable globals exported, its start function exported
    /// instead of run (an instance that is made anew from an image must not start again), and its
    /// heaviest operators as heavy as they are.
    pub fn transform(&self, wasm: &[u8]) -> Result<Vec<u8>, ModuleError> {
        const EXPORT: u8 = 7;
        const START_ID: u8 = 8;
        const CODE: u8 = 10;
        let mut original = vec![];
        let mut module = wasm_encoder::Module::new();
        let mut done = false;
        for payload in Parser::new(0).parse_all(wasm) {
            let payload = payload.map_err(invalid)?;
            if let Payload::ExportSection(section) = &payload {
                for export in section.clone() {
                    original.push(export.map_err(invalid)?);
                }
            }
            let Some((id, range)) = payload.as_section() else {
                continue;
            };
            // Sections after the exports: start, elements, data count, code, data.
            if !done && id >= EXPORT {
                done = true;
                if id != EXPORT {
                    module.section(&self.exports(&[]));
                }
            }
            match id {
                EXPORT => module.section(&self.exports(&original)),
                START_ID => &mut module,
                CODE if !self.heaviest.is_empty() => {
                    let reader = wasmparser::BinaryReader::new(&wasm[range.clone()], range.start);
                    let bodies = CodeSectionReader::new(reader).map_err(invalid)?;
                    module.section(&self.code(wasm, bodies)?)
                }
                _ => module.section(&RawSection {
                    id,
                    data: &wasm[range],
                }),
            };
        }
        if !done {
            module.section(&self.exports(&[]));
        }
        Ok(module.finish())
    }

    fn code(&self, wasm: &[u8], bodies: CodeSectionReader) -> Result<CodeSection, ModuleError> {
        const NOP: u8 = 1;
        let mut heaviest = self.heaviest.iter().copied().peekable();
        let mut section = CodeSection::new();
        for body in bodies {
            let range = body.map_err(invalid)?.range();
            let mut bytes = vec![];
            let mut from = range.start;
            while let Some(at) = heaviest.next_if(|at| *at < range.end) {
                bytes.extend_from_slice(&wasm[from..at]);
                bytes.extend([NOP; NOPS_BEFORE_HEAVIEST]);
                from = at;
            }
            bytes.extend_from_slice(&wasm[from..range.end]);
            section.raw(&bytes);
        }
        Ok(section)
    }

    fn exports(&self, original: &[wasmparser::Export]) -> ExportSection {
        let mut section = ExportSection::new();
        for export in original {
            let kind = match export.kind {
                ExternalKind::Func | ExternalKind::FuncExact => ExportKind::Func,
                ExternalKind::Table => ExportKind::Table,
                ExternalKind::Memory => ExportKind::Memory,
                ExternalKind::Global => ExportKind::Global,
                ExternalKind::Tag => ExportKind::Tag,
            };
            section.export(export.name, kind, export.index);
        }
        if self.has_memory {
            section.export(MEMORY, ExportKind::Memory, 0);
        }
        if self.has_table {
            section.export(TABLE, ExportKind::Table, 0);
        }
        if let Some(start) = self.start {
            section.export(START, ExportKind::Func, start);
        }
        for index in &self.mutable_globals {
            section.export(&format!("{GLOBAL}{index}"), ExportKind::Global, *index);
        }
        section
    }
}

fn at_most(what: &'static str, count: u64, max: u64) -> Result<(), ModuleError> {
    if count > max {
        Err(ModuleError::TooMany { what, count, max })
    } else {
        Ok(())
    }
}

fn invalid(error: wasmparser::BinaryReaderError) -> ModuleError {
    ModuleError::Invalid(error.to_string())
}
