//! The canisters as gzipped Wasm, ready to install.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};

use crate::section;
use crate::workspace::Workspace;

/// What canisters are compiled to.
const TARGET: &str = "wasm32-unknown-unknown";

/// The section in which a canister shows its interface to anyone.
const INTERFACE_SECTION: &str = "icp:public candid:service";

/// Tells the build of the index where the bucket's Wasm lies, which it embeds.
const BUCKET_WASM: &str = "OPENSTORAGE_BUCKET_WASM";

/// One canister: the name of its Wasm, its package, and its interface in the checkout.
struct Canister {
    name: &'static str,
    package: &'static str,
    interface: &'static str,
    /// The features to build it with.
    features: &'static str,
    /// The Wasm that it embeds, where it does.
    embeds: &'static str,
}

const BUCKET: Canister = Canister {
    name: "bucket",
    package: "data_bucket",
    interface: "canisters/bucket/data_bucket.did",
    features: "",
    embeds: "bucket",
};

const INDEX: Canister = Canister {
    name: "index",
    package: "data_bucket_index",
    interface: "canisters/index/data_bucket_index.did",
    features: "",
    embeds: "bucket",
};

/// In the order in which they are built: the index embeds the bucket.
const CANISTERS: [Canister; 3] = [
    BUCKET,
    INDEX,
    Canister {
        name: "chat",
        package: "chat",
        interface: "canisters/chat/chat.did",
        features: "",
        embeds: "bucket",
    },
];

/// The same code one version further, for tests of upgrades and downgrades.
const NEXT: [Canister; 2] = [
    Canister {
        name: "bucket-next",
        features: "next",
        ..BUCKET
    },
    Canister {
        name: "index-next",
        features: "next",
        embeds: "bucket-next",
        ..INDEX
    },
];

/// With bugs to choose from, for the simulation.
const MUTANT: [Canister; 2] = [
    Canister {
        name: "bucket-mutant",
        features: "mutants",
        ..BUCKET
    },
    Canister {
        name: "index-mutant",
        features: "mutants",
        embeds: "bucket-mutant",
        ..INDEX
    },
];

/// The canisters of one build.
#[derive(Debug, Clone)]
pub struct Canisters {
    /// The directory that holds `bucket.wasm.gz`, `index.wasm.gz` and `chat.wasm.gz`.
    pub dir: PathBuf,
    files: Vec<File>,
}

#[derive(Debug, Clone)]
struct File {
    path: PathBuf,
    bytes: usize,
    /// SHA-256 of the gzipped Wasm, in hex: the module hash of a canister that it is installed in.
    sha256: String,
}

impl Canisters {
    /// One line for each canister: size, hash, path.
    pub fn summary(&self) -> String {
        self.files.iter().fold(String::new(), |mut text, file| {
            let (bytes, hash, path) = (file.bytes, &file.sha256, file.path.display());
            let _ = writeln!(text, "{bytes:>9} bytes  sha256 {hash}  {path}");
            text
        })
    }
}

/// Builds the three canisters, gzipped and with their interface inside. Fails when the Wasm target
/// is missing and cannot be added, or when one of them does not compile.
pub fn build(workspace: &Workspace) -> Result<Canisters> {
    make(workspace, &CANISTERS)
}

/// Builds index and bucket once more, one version further, beside the others: `index-next.wasm.gz` and
/// `bucket-next.wasm.gz`.
pub fn build_next(workspace: &Workspace) -> Result<Canisters> {
    make(workspace, &NEXT)
}

/// Builds bucket and index with the bugs that the simulation must find, beside the others.
pub fn build_mutant(workspace: &Workspace) -> Result<Canisters> {
    make(workspace, &MUTANT)
}

fn make(workspace: &Workspace, canisters: &[Canister]) -> Result<Canisters> {
    ensure_target(workspace)?;
    let dir = workspace.target.join("canisters");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;

    let mut files = Vec::new();
    for (done, canister) in canisters.iter().enumerate() {
        let number = done + 1;
        eprintln!(
            "building canisters ({number}/{}) {}",
            canisters.len(),
            canister.name
        );
        let embedded = dir.join(format!("{}.wasm.gz", canister.embeds));
        let wasm = compile(workspace, canister, &embedded)?;
        let gz = gzip(&with_interface(workspace, canister, wasm)?)?;
        let path = dir.join(format!("{}.wasm.gz", canister.name));
        write_if_changed(&path, &gz)?;
        files.push(File {
            path,
            bytes: gz.len(),
            sha256: hex(&Sha256::digest(&gz)),
        });
    }
    Ok(Canisters { dir, files })
}

/// The Wasm as the compiler leaves it.
fn compile(workspace: &Workspace, canister: &Canister, embedded: &Path) -> Result<Vec<u8>> {
    let package = canister.package;
    let args = [
        "--profile",
        "canister",
        "--target",
        TARGET,
        "--package",
        package,
        "--bin",
        package,
        "--features",
        canister.features,
    ];
    let programs = workspace.build(&args, &[(BUCKET_WASM, embedded)])?;
    let path = programs
        .get(package)
        .with_context(|| format!("cargo named no Wasm of {package}"))?;
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn with_interface(workspace: &Workspace, canister: &Canister, wasm: Vec<u8>) -> Result<Vec<u8>> {
    let path = workspace.root.join(canister.interface);
    let interface = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut wasm = wasm;
    section::append(&mut wasm, INTERFACE_SECTION, &interface);
    Ok(wasm)
}

/// The same bytes for the same input, always: no time and no name in the header.
fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

/// Leaves a file alone that holds `bytes` already, so that cargo does not compile again what embeds
/// it. Others never see a half-written file.
fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let new = path.with_extension(format!("new-{}", std::process::id()));
    fs::write(&new, bytes)
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// `bytes` in lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes sure that the compiler can write Wasm, and adds what is missing where rustup may.
fn ensure_target(workspace: &Workspace) -> Result<()> {
    if has_target(workspace)? {
        return Ok(());
    }
    let advice = format!("run `rustup target add {TARGET}` and try again");
    eprintln!("adding the compiler's target {TARGET}");
    // On stderr, as all progress: stdout is for results.
    let added = Command::new("rustup")
        .args(["target", "add", TARGET])
        .current_dir(&workspace.root)
        .stdout(Stdio::from(std::io::stderr()))
        .status();
    match added {
        Ok(status) if status.success() && has_target(workspace)? => Ok(()),
        Ok(_) => bail!("the compiler's target {TARGET} could not be added: {advice}"),
        Err(_) => bail!(
            "the compiler lacks the target {TARGET}, and there is no rustup to add it: install Rust \
             from https://rustup.rs, then {advice}"
        ),
    }
}

fn has_target(workspace: &Workspace) -> Result<bool> {
    let output = Command::new("rustc")
        .args(["--print", "sysroot"])
        .current_dir(&workspace.root)
        .stderr(Stdio::inherit())
        .output()
        .context("rustc could not be started: install Rust from https://rustup.rs")?;
    let sysroot = String::from_utf8(output.stdout)?;
    let library = Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET);
    Ok(library.is_dir())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn the_same_bytes_compress_to_the_same_bytes() {
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i / 3) as u8).collect();
        let first = gzip(&bytes).expect("compresses");
        assert_eq!(first, gzip(&bytes).expect("compresses"));
        // No flags, hence no name; time 0; best compression; no operating system.
        assert_eq!(first[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255]);

        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&first[..])
            .read_to_end(&mut back)
            .expect("decompresses");
        assert_eq!(back, bytes);
    }

    #[test]
    fn an_unchanged_file_is_not_written_again() {
        let dir = std::env::temp_dir().join(format!("xtask-canisters-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("makes a directory");
        let path = dir.join("a.wasm.gz");
        write_if_changed(&path, b"one").expect("writes");

        let mut permissions = fs::metadata(&path).expect("is there").permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&path, permissions).expect("sets permissions");
        let before = fs::metadata(&path).expect("is there").modified().ok();
        write_if_changed(&path, b"one").expect("leaves it alone");
        assert_eq!(
            fs::metadata(&path).expect("is there").modified().ok(),
            before
        );

        write_if_changed(&path, b"two").expect("replaces it");
        assert_eq!(fs::read(&path).expect("reads"), b"two");
        fs::remove_dir_all(&dir).expect("cleans up");
    }

    #[test]
    fn hex_is_lower_case() {
        assert_eq!(hex(&[0, 0xab, 0x10]), "00ab10");
    }
}
