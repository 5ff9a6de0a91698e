//! A canister's code: checked, made accessible, compiled once.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io::Read,
    path::Path,
    sync::{Arc, Mutex},
};

use sha2::{Digest, Sha256};
use thiserror::Error;
use wasmtime::{Cache, CacheConfig, Config, Engine, ExternType, InstancePre, Linker};

use super::{
    HeapKind, api, cost, heap,
    host::Host,
    shape::{GLOBAL, Shape},
};

/// The Internet Computer's limit on a module, uncompressed.
pub const WASM_BYTES_MAX: u64 = 100 << 20;

/// Stack of Wasm code. A thread that runs a machine needs that much and a little more.
const STACK_BYTES: usize = 1 << 20;

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
    #[error("the Wasm module's entry point '{0}' takes or gives values")]
    EntryPointType(String),
    #[error("the Wasm module imports '{module}.{name}', which is no function of the System API")]
    UnknownImport { module: String, name: String },
    #[error("the Wasm module has {count} {what}; at most {max} are allowed")]
    TooMany {
        what: &'static str,
        count: u64,
        max: u64,
    },
    #[error("the Wasm module's custom section '{0}' is neither 'icp:public …' nor 'icp:private …'")]
    UnknownSection(String),
    #[error("the Wasm module has two custom sections for the metadata '{0}'")]
    MetadataTwice(String),
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
        Self::with_heaps(cache, HeapKind::Mapped)
    }

    /// As [`Compiler::new`], with heaps of that kind.
    pub fn with_heaps(cache: Option<&Path>, heaps: HeapKind) -> Self {
        let mut config = Config::new();
        config
            .consume_fuel(true)
            .operator_cost(cost::weights())
            .cranelift_nan_canonicalization(true)
            .wasm_relaxed_simd(false)
            .wasm_multi_memory(false)
            .wasm_memory64(false)
            .max_wasm_stack(STACK_BYTES)
            // The heap is put back after a trap in another way.
            .memory_init_cow(false);
        heap::configure(&mut config, heaps);
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
        let compiled = wasmtime::Module::new(&self.engine, shape.transform(&wasm)?)
            .map_err(|error| ModuleError::Invalid(format!("{error:#}")))?;
        check_entry_points(&shape, &compiled)?;
        let instance =
            self.linker.instantiate_pre(&compiled).map_err(|error| {
                match missing_import(&self.linker, &compiled) {
                    Some((module, name)) => ModuleError::UnknownImport { module, name },
                    None => ModuleError::Invalid(format!("{error:#}")),
                }
            })?;
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

    /// Whether running the code may leave an instance with other tables or segments than it began with.
    pub(super) fn wears_out(&self) -> bool {
        self.0.shape.wears_out
    }

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

/// Names of entry points are checked with the module's shape, types where they are known.
fn check_entry_points(shape: &Shape, module: &wasmtime::Module) -> Result<(), ModuleError> {
    for name in &shape.entry_points {
        let plain = match module.get_export(name) {
            Some(ExternType::Func(ty)) => ty.params().len() == 0 && ty.results().len() == 0,
            _ => false,
        };
        if !plain {
            return Err(ModuleError::EntryPointType(name.clone()));
        }
    }
    Ok(())
}

fn missing_import(linker: &Linker<Host>, module: &wasmtime::Module) -> Option<(String, String)> {
    let mut store = wasmtime::Store::new(module.engine(), Host::idle());
    module
        .imports()
        .find(|import| {
            linker
                .get(&mut store, import.module(), import.name())
                .is_err()
        })
        .map(|import| (import.module().into(), import.name().into()))
}
