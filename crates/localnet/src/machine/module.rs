//! A canister's code: checked, made accessible, compiled once.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    io::Read,
    path::Path,
    sync::{Arc, Mutex},
};

use sha2::{Digest, Sha256};
use thiserror::Error;
use wasm_encoder::{ExportKind, ExportSection, RawSection};
use wasmparser::{ExternalKind, Parser, Payload, TypeRef};
use wasmtime::{Cache, CacheConfig, Config, Engine, InstancePre, Linker};

use super::{api, cost, host::Host};

/// The Internet Computer's limit on a module, uncompressed.
const WASM_BYTES_MAX: u64 = 100 << 20;

/// Stack of Wasm code. A thread that runs a machine needs that much and a little more.
const STACK_BYTES: usize = 1 << 20;

pub(super) const MEMORY: &str = "\u{1}memory";
pub(super) const START: &str = "\u{1}start";
const TABLE: &str = "\u{1}table";
const GLOBAL: &str = "\u{1}global ";

/// Why a module cannot be installed.
#[derive(Debug, Error)]
pub enum ModuleError {
    #[error("the Wasm module has more than {WASM_BYTES_MAX} bytes uncompressed")]
    TooLarge,
    #[error("the gzipped Wasm module cannot be unpacked: {0}")]
    Gzip(std::io::Error),
    #[error("not a valid Wasm module: {0}")]
    Invalid(String),
    #[error(
        "the Wasm module uses 64-bit memory, which this network does not run; Motoko: compile with --legacy-persistence"
    )]
    Memory64,
    #[error("the Wasm module exports both a query and an update named '{0}'")]
    ExportedTwice(String),
    #[error("the Wasm module exports '{0}', which is no entry point of a canister")]
    UnknownExport(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataVisibility {
    Public,
    Private,
}

/// Turns Wasm into machine code, each module once.
pub struct Compiler {
    engine: Engine,
    linker: Linker<Host>,
    known: Mutex<BTreeMap<[u8; 32], Module>>,
}

impl Compiler {
    /// Keeps machine code in `cache` between processes, where one is given.
    ///
    /// # Panics
    /// When the folder of the cache cannot be used.
    pub fn new(cache: Option<&Path>) -> Self {
        let mut config = Config::new();
        config
            .consume_fuel(true)
            .operator_cost(cost::weights())
            .cranelift_nan_canonicalization(true)
            .wasm_relaxed_simd(false)
            .wasm_multi_memory(false)
            .wasm_memory64(false)
            .max_wasm_stack(STACK_BYTES)
            // The heap is copied back after a trap; an image that is mapped brings nothing.
            .memory_init_cow(false);
        if let Some(folder) = cache {
            let mut cache = CacheConfig::new();
            cache.with_directory(folder);
            config.cache(Some(
                Cache::new(cache).expect("the compile cache's folder can be used"),
            ));
        }
        let engine = Engine::new(&config).expect("the engine's configuration is valid");
        let mut linker = Linker::new(&engine);
        api::define(&mut linker).expect("every import is defined once");
        Self {
            engine,
            linker,
            known: Mutex::default(),
        }
    }

    /// Checks and compiles a module, gzipped or not.
    pub fn compile(&self, bytes: &[u8]) -> Result<Module, ModuleError> {
        let hash: [u8; 32] = Sha256::digest(bytes).into();
        if let Some(module) = self.known.lock().expect("no panic holds it").get(&hash) {
            return Ok(module.clone());
        }
        let wasm = unpack(bytes)?;
        let shape = Shape::of(&wasm)?;
        let compiled = wasmtime::Module::new(&self.engine, shape.with_exports(&wasm)?)
            .map_err(|error| ModuleError::Invalid(format!("{error:#}")))?;
        let instance = self
            .linker
            .instantiate_pre(&compiled)
            .map_err(|error| ModuleError::Invalid(format!("{error:#}")))?;
        let module = Module(Arc::new(Inner {
            hash,
            instance,
            shape,
        }));
        self.known
            .lock()
            .expect("no panic holds it")
            .insert(hash, module.clone());
        Ok(module)
    }
}

/// A compiled module; cheap to clone.
#[derive(Clone)]
pub struct Module(Arc<Inner>);

struct Inner {
    hash: [u8; 32],
    instance: InstancePre<Host>,
    shape: Shape,
}

impl Module {
    /// SHA-256 of the bytes as they were given, gzipped or not.
    pub fn hash(&self) -> [u8; 32] {
        self.0.hash
    }

    pub(super) fn instance(&self) -> &InstancePre<Host> {
        &self.0.instance
    }

    /// Whether the module exports `name`, for instance `canister_update push_chunk`.
    pub fn exports(&self, name: &str) -> bool {
        self.0.shape.entry_points.contains(name)
    }

    pub(super) fn has_start(&self) -> bool {
        self.0.shape.start.is_some()
    }

    /// Names under which mutable globals are exported.
    pub(super) fn globals(&self) -> impl Iterator<Item = String> + '_ {
        self.0
            .shape
            .mutable_globals
            .iter()
            .map(|index| format!("{GLOBAL}{index}"))
    }

    pub(super) const TABLE: &str = TABLE;

    /// Whether the code can ask for the certificate of its data.
    pub fn asks_for_certificate(&self) -> bool {
        self.0.shape.asks_for_certificate
    }

    /// All custom sections `icp:public NAME` and `icp:private NAME`, by name.
    pub fn all_metadata(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let metadata = self.0.shape.metadata.iter();
        metadata.map(|(name, (_, bytes))| (name.as_str(), bytes.as_slice()))
    }

    /// A custom section `icp:public NAME` or `icp:private NAME`.
    pub fn metadata(&self, name: &str) -> Option<(MetadataVisibility, &[u8])> {
        self.0
            .shape
            .metadata
            .get(name)
            .map(|(visibility, bytes)| (*visibility, bytes.as_slice()))
    }
}

fn unpack(bytes: &[u8]) -> Result<Cow<'_, [u8]>, ModuleError> {
    let wasm = if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut wasm = vec![];
        let mut limited = flate2::read::MultiGzDecoder::new(bytes).take(WASM_BYTES_MAX + 1);
        limited.read_to_end(&mut wasm).map_err(ModuleError::Gzip)?;
        Cow::Owned(wasm)
    } else {
        Cow::Borrowed(bytes)
    };
    if wasm.len() as u64 > WASM_BYTES_MAX {
        Err(ModuleError::TooLarge)
    } else {
        Ok(wasm)
    }
}

/// What there is in a module, as far as a canister's host cares.
#[derive(Default)]
struct Shape {
    entry_points: BTreeSet<String>,
    start: Option<u32>,
    mutable_globals: Vec<u32>,
    has_memory: bool,
    has_table: bool,
    metadata: BTreeMap<String, (MetadataVisibility, Vec<u8>)>,
    asks_for_certificate: bool,
}

impl Shape {
    fn of(wasm: &[u8]) -> Result<Self, ModuleError> {
        let mut shape = Self::default();
        let mut globals_imported = 0;
        for payload in Parser::new(0).parse_all(wasm) {
            match payload.map_err(invalid)? {
                Payload::Version {
                    encoding: wasmparser::Encoding::Component,
                    ..
                } => {
                    return Err(ModuleError::Invalid("it is a component".into()));
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import.map_err(invalid)?;
                        if matches!(import.ty, TypeRef::Global(_)) {
                            globals_imported += 1;
                        }
                        shape.asks_for_certificate |= import.name.starts_with("data_certificate");
                    }
                }
                Payload::MemorySection(section) => {
                    for memory in section {
                        shape.has_memory = true;
                        if memory.map_err(invalid)?.memory64 {
                            return Err(ModuleError::Memory64);
                        }
                    }
                }
                Payload::TableSection(section) => shape.has_table = section.count() > 0,
                Payload::GlobalSection(section) => {
                    for (index, global) in (globals_imported..).zip(section) {
                        if global.map_err(invalid)?.ty.mutable {
                            shape.mutable_globals.push(index);
                        }
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export.map_err(invalid)?;
                        if export.kind == ExternalKind::Func && export.name.starts_with("canister_")
                        {
                            shape.entry_points.insert(export.name.into());
                        }
                    }
                }
                Payload::StartSection { func, .. } => shape.start = Some(func),
                Payload::CustomSection(section) => {
                    shape.note_metadata(section.name(), section.data())
                }
                _ => {}
            }
        }
        shape.check_entry_points()?;
        Ok(shape)
    }

    fn note_metadata(&mut self, name: &str, data: &[u8]) {
        for (prefix, visibility) in [
            ("icp:public ", MetadataVisibility::Public),
            ("icp:private ", MetadataVisibility::Private),
        ] {
            if let Some(name) = name.strip_prefix(prefix) {
                self.metadata
                    .insert(name.into(), (visibility, data.to_vec()));
            }
        }
    }

    fn check_entry_points(&self) -> Result<(), ModuleError> {
        const PLAIN: [&str; 6] = [
            "canister_init",
            "canister_pre_upgrade",
            "canister_post_upgrade",
            "canister_inspect_message",
            "canister_heartbeat",
            "canister_global_timer",
        ];
        let mut methods = BTreeSet::new();
        for name in &self.entry_points {
            let method = [
                "canister_update ",
                "canister_query ",
                "canister_composite_query ",
            ]
            .iter()
            .find_map(|prefix| name.strip_prefix(prefix));
            match method {
                Some(method) if !methods.insert(method) => {
                    return Err(ModuleError::ExportedTwice(method.into()));
                }
                Some(_) => {}
                None if PLAIN.contains(&name.as_str()) || name == "canister_on_low_wasm_memory" => {
                }
                None => return Err(ModuleError::UnknownExport(name.clone())),
            }
        }
        Ok(())
    }

    /// The module with its table, memory and mutable globals exported, and its start function exported
    /// instead of run: an instance that is made anew from an image must not start again.
    fn with_exports(&self, wasm: &[u8]) -> Result<Vec<u8>, ModuleError> {
        const EXPORT: u8 = 7;
        const START_ID: u8 = 8;
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

fn invalid(error: wasmparser::BinaryReaderError) -> ModuleError {
    ModuleError::Invalid(error.to_string())
}
