//! The folder of one instance: which files are the state, and how one state takes another's place.
//!
//! | file | what |
//! | --- | --- |
//! | `lock` | held by the process that uses the folder |
//! | `manifest.json` | which generation is the state; it changes by being renamed into place |
//! | `state-N` | everything but pages, as of checkpoint N |
//! | `pages-N` | pages of heaps and stable memories that changed between checkpoint N - 1 and N |
//! | `journal-N` | every input since checkpoint N |
//!
//! A checkpoint writes the files of the next generation, syncs them, and renames the manifest. Until
//! then the old generation is the state, after that the new one; files of no generation are removed.

use std::{
    fs::{self, File, TryLockError},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::records::{self, Writer};

/// The layout of the folder. Another one is refused.
const LAYOUT: u32 = 4;

/// Page files are written anew, as one, when they hold this many times the bytes of the live pages.
const PAGES_FACTOR_MAX: u64 = 2;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Manifest {
    layout: u32,
    generation: u64,
    /// Generations whose page files make up the memories, later ones over earlier ones.
    pages: Vec<u64>,
    /// Bytes of those files.
    pages_bytes: u64,
}

/// A folder that this process alone uses, until it is dropped.
pub struct Folder {
    path: PathBuf,
    manifest: Manifest,
    /// Unlocked when it is closed.
    _lock: File,
}

impl Folder {
    /// Opens a folder, makes it where there is none.
    ///
    /// # Errors
    /// When another process uses it, it has another layout, or it cannot be written.
    pub fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let lock = File::create(path.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = format!("{} is used by another server", path.display());
                return Err(io::Error::new(ErrorKind::WouldBlock, text));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let folder = Self {
            path: path.to_owned(),
            manifest: manifest(&path.join(MANIFEST))?,
            _lock: lock,
        };
        folder.tidy()?;
        Ok(folder)
    }

    /// Whether nothing was ever kept here.
    pub fn is_new(&self) -> bool {
        self.manifest.generation == 0
    }

    /// What the last checkpoint kept besides pages.
    pub fn state(&self) -> io::Result<Vec<u8>> {
        let mut state = vec![];
        let take = |record| {
            state = record;
            Ok(())
        };
        records::read_whole(&self.file("state", self.manifest.generation), take)?;
        Ok(state)
    }

    /// Hands every page of the last checkpoint to `take`, a later version of a page after an earlier one.
    pub fn pages(&self, mut take: impl FnMut(Vec<u8>) -> io::Result<()>) -> io::Result<()> {
        for generation in &self.manifest.pages {
            records::read_whole(&self.file("pages", *generation), &mut take)?;
        }
        Ok(())
    }

    /// Hands every input since the last checkpoint to `take` and returns the journal, to go on with.
    pub fn journal(&self, take: impl FnMut(Vec<u8>) -> io::Result<()>) -> io::Result<Writer> {
        let path = self.file("journal", self.manifest.generation);
        let bytes = records::read(&path, take)?;
        Writer::resume(&path, bytes)
    }

    /// Whether the next checkpoint should write all pages, `live_bytes` of them, because most of what the
    /// page files hold is out of date.
    pub fn wants_all_pages(&self, live_bytes: u64) -> bool {
        self.manifest.pages_bytes > PAGES_FACTOR_MAX * live_bytes.max(1 << 20)
    }

    /// Makes `state` and pages the kept ones: those that `write` appends, over the earlier ones unless
    /// they are `all`. Returns the journal of what comes after.
    pub fn checkpoint(
        &mut self,
        state: &[u8],
        all: bool,
        write: impl FnOnce(&mut Writer) -> io::Result<()>,
    ) -> io::Result<Writer> {
        let generation = self.manifest.generation + 1;
        let mut file = Writer::create(&self.file("state", generation))?;
        file.append(state)?;
        file.sync()?;
        let mut pages = Writer::create(&self.file("pages", generation))?;
        write(&mut pages)?;
        pages.sync()?;
        let mut journal = Writer::create(&self.file("journal", generation))?;
        journal.sync()?;

        let mut manifest = self.manifest.clone();
        manifest.generation = generation;
        if all {
            manifest.pages.clear();
            manifest.pages_bytes = 0;
        }
        manifest.pages.push(generation);
        manifest.pages_bytes += pages.bytes();
        self.replace(&manifest)?;
        self.manifest = manifest;
        self.tidy()?;
        Ok(journal)
    }

    fn replace(&self, manifest: &Manifest) -> io::Result<()> {
        let new = self.path.join("manifest.new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(manifest)?)?;
        file.sync_all()?;
        self.sync()?;
        fs::rename(&new, self.path.join(MANIFEST))?;
        self.sync()
    }

    /// Makes names in the folder outlive a stop of the machine.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Removes files of generations that are not the state.
    fn tidy(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let parts = name.to_str().and_then(|name| name.rsplit_once('-'));
            let Some((kind, Ok(generation))) =
                parts.map(|(kind, number)| (kind, number.parse::<u64>()))
            else {
                continue;
            };
            let stays = match kind {
                "state" | "journal" => generation == self.manifest.generation,
                "pages" => self.manifest.pages.contains(&generation),
                _ => true,
            };
            if !stays {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn file(&self, kind: &str, generation: u64) -> PathBuf {
        self.path.join(format!("{kind}-{generation}"))
    }
}

const MANIFEST: &str = "manifest.json";

/// Of generation 0 where there is none.
fn manifest(path: &Path) -> io::Result<Manifest> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(Manifest {
                layout: LAYOUT,
                generation: 0,
                pages: vec![],
                pages_bytes: 0,
            });
        }
        Err(error) => return Err(error),
    };
    let invalid = |text| {
        io::Error::new(
            ErrorKind::InvalidData,
            format!("{}: {text}", path.display()),
        )
    };
    let manifest: Manifest =
        serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
    if manifest.layout != LAYOUT {
        return Err(invalid(format!(
            "layout {} is not {LAYOUT}, which this version reads",
            manifest.layout
        )));
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn pages(folder: &Folder) -> Vec<Vec<u8>> {
        let mut pages = vec![];
        folder
            .pages(|page| {
                pages.push(page);
                Ok(())
            })
            .unwrap();
        pages
    }

    #[test]
    fn a_checkpoint_takes_the_place_of_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::open(dir.path()).unwrap();
        assert!(folder.is_new());
        let mut journal = folder
            .checkpoint(b"one", false, |pages| pages.append(b"a"))
            .unwrap();
        journal.append(b"input").unwrap();
        journal.sync().unwrap();
        // Files of a checkpoint that was not finished.
        fs::write(dir.path().join("state-2"), b"half").unwrap();
        drop(folder);

        let mut folder = Folder::open(dir.path()).unwrap();
        assert_eq!(folder.state().unwrap(), b"one");
        let mut inputs = vec![];
        folder
            .journal(|input| {
                inputs.push(input);
                Ok(())
            })
            .unwrap();
        assert_eq!(inputs, [b"input"]);
        folder
            .checkpoint(b"two", false, |pages| pages.append(b"b"))
            .unwrap();
        assert_eq!(pages(&folder), [b"a", b"b"]);
        let kept = [
            "journal-2",
            "lock",
            "manifest.json",
            "pages-1",
            "pages-2",
            "state-2",
        ];
        assert_eq!(names(dir.path()), kept);

        folder
            .checkpoint(b"three", true, |pages| pages.append(b"c"))
            .unwrap();
        assert_eq!(
            (pages(&folder), folder.state().unwrap()),
            (vec![b"c".to_vec()], b"three".to_vec())
        );
    }

    #[test]
    fn a_checkpoint_that_is_damaged_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::open(dir.path()).unwrap();
        let write = |pages: &mut Writer| (0..9).try_for_each(|page| pages.append(&[page; 99]));
        drop(folder.checkpoint(b"state", false, write).unwrap());
        let path = dir.path().join("pages-1");
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[500] ^= 1;
        for damaged in [flipped, whole[..500].to_vec()] {
            fs::write(&path, damaged).unwrap();
            let error = folder.pages(|_| Ok(())).unwrap_err();
            assert!(error.to_string().contains("damaged"), "{error}");
        }
        fs::write(&path, whole).unwrap();
        assert_eq!(pages(&folder).len(), 9);
    }

    #[test]
    fn a_folder_serves_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let Err(error) = Folder::open(dir.path()) else {
            panic!("it was opened twice");
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        drop(folder);
        Folder::open(dir.path()).unwrap();
    }
}
