//! A network's memories as segments: what a checkpoint writes of them, and how they are put together again.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use candid::Principal;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

use super::{folder::Folder, records::Writer};
use crate::{
    machine::{DIRTY_PAGE_BYTES, Image, Machine},
    network::{LoadError, Network, Saved},
};

/// Memories are compared and written in segments of so many bytes.
const SEGMENT_BYTES: u64 = 65_536;
const PAGES_PER_SEGMENT: u64 = SEGMENT_BYTES / DIRTY_PAGE_BYTES;

/// Which segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Place {
    /// A module, by its SHA-256.
    Module([u8; 32]),
    Heap(Principal, u64),
    Stable(Principal, u64),
}

/// A record of a page file. A segment that is gone has no parts.
#[derive(Serialize, Deserialize)]
struct Segment {
    place: Place,
    /// A whole module or part of a heap; of stable memory the pages that were written to, each after its
    /// number (8 bytes, little-endian).
    bytes: ByteBuf,
}

/// The record of a state file.
#[derive(Serialize, Deserialize)]
struct State {
    #[serde(with = "serde_bytes")]
    network: Vec<u8>,
    /// Of every canister with code: its module, and its memories without their bytes.
    canisters: BTreeMap<Principal, ([u8; 32], u64, Image)>,
}

/// What the folder has, by hash, so that a checkpoint writes only what changed.
#[derive(Default)]
pub struct Known(BTreeMap<Place, [u8; 32]>);

/// Writes a checkpoint and returns the journal of what comes after it.
pub fn checkpoint(folder: &mut Folder, network: &Network, known: &mut Known) -> io::Result<Writer> {
    let canisters = network
        .machines()
        .map(|(id, machine)| {
            let shape = (
                machine.module().hash(),
                machine.heap_bytes(),
                machine.shape(),
            );
            (*id, shape)
        })
        .collect();
    let state = State {
        network: network.state(),
        canisters,
    };
    let state = postcard::to_stdvec(&state).map_err(io::Error::other)?;
    let live_bytes = network
        .machines()
        .map(|(_, machine)| machine.heap_bytes() + machine.stable().bytes_written())
        .sum();
    let all = folder.wants_all_pages(live_bytes);
    if all {
        known.0.clear();
    }
    folder.checkpoint(&state, all, |file| {
        let mut scribe = Scribe {
            file,
            known,
            seen: BTreeSet::new(),
        };
        for (hash, module) in network.modules() {
            scribe.write(Place::Module(*hash), module)?;
        }
        for (id, machine) in network.machines() {
            scribe.heap(*id, machine)?;
            scribe.stable(*id, machine)?;
        }
        scribe.forget()
    })
}

struct Scribe<'a> {
    file: &'a mut Writer,
    known: &'a mut Known,
    seen: BTreeSet<Place>,
}

impl Scribe<'_> {
    fn heap(&mut self, id: Principal, machine: &Machine) -> io::Result<()> {
        let segments = machine.heap().chunks(SEGMENT_BYTES as usize);
        for (number, bytes) in (0..).zip(segments) {
            self.write(Place::Heap(id, number), bytes)?;
        }
        Ok(())
    }

    fn stable(&mut self, id: Principal, machine: &Machine) -> io::Result<()> {
        let mut bytes = vec![];
        let mut current = None;
        for (page, content) in machine.stable().pages() {
            let segment = page / PAGES_PER_SEGMENT;
            if let Some(before) = current.replace(segment).filter(|before| *before != segment) {
                self.write(Place::Stable(id, before), &bytes)?;
                bytes.clear();
            }
            bytes.extend_from_slice(&page.to_le_bytes());
            bytes.extend_from_slice(content);
        }
        match current {
            Some(last) => self.write(Place::Stable(id, last), &bytes),
            None => Ok(()),
        }
    }

    /// Appends a segment unless the folder has it as it is.
    fn write(&mut self, place: Place, bytes: &[u8]) -> io::Result<()> {
        let hash = Sha256::digest(bytes).into();
        self.seen.insert(place);
        if self.known.0.insert(place, hash) == Some(hash) {
            return Ok(());
        }
        self.append(place, bytes)
    }

    /// Notes the segments that are gone.
    fn forget(&mut self) -> io::Result<()> {
        let gone: Vec<_> = self
            .known
            .0
            .keys()
            .filter(|place| !self.seen.contains(place))
            .copied()
            .collect();
        for place in gone {
            self.known.0.remove(&place);
            self.append(place, &[])?;
        }
        Ok(())
    }

    fn append(&mut self, place: Place, bytes: &[u8]) -> io::Result<()> {
        let segment = Segment {
            place,
            bytes: ByteBuf::from(bytes),
        };
        let record = postcard::to_stdvec(&segment).map_err(io::Error::other)?;
        self.file.append(&record)
    }
}

/// The network as of the folder's last checkpoint.
pub fn load(
    folder: &Folder,
    compile: impl FnOnce(Saved) -> Result<Network, LoadError>,
) -> Result<(Network, Known), super::OpenError> {
    let State { network, canisters } =
        postcard::from_bytes(&folder.state()?).map_err(LoadError::State)?;
    let mut segments = BTreeMap::new();
    let mut known = Known::default();
    folder.pages(|record| {
        let Segment { place, bytes } = postcard::from_bytes(&record).map_err(io::Error::other)?;
        if bytes.is_empty() {
            known.0.remove(&place);
            segments.remove(&place);
        } else {
            known.0.insert(place, Sha256::digest(&bytes).into());
            segments.insert(place, bytes.into_vec());
        }
        Ok(())
    })?;

    let mut saved = Saved {
        state: network,
        modules: BTreeMap::new(),
        canisters: BTreeMap::new(),
    };
    for (id, (module, heap_bytes, mut image)) in canisters {
        image.heap = vec![0; usize::try_from(heap_bytes).map_err(io::Error::other)?];
        saved.canisters.insert(id, (module, image));
    }
    for (place, bytes) in segments {
        match place {
            Place::Module(hash) => {
                saved.modules.insert(hash, bytes);
            }
            Place::Heap(id, number) => {
                let (_, image) = saved.canisters.get_mut(&id).ok_or(LoadError::Image(id))?;
                let start = (number * SEGMENT_BYTES) as usize;
                let part = image.heap.get_mut(start..start + bytes.len());
                part.ok_or(LoadError::Image(id))?.copy_from_slice(&bytes);
            }
            Place::Stable(id, _) => {
                let (_, image) = saved.canisters.get_mut(&id).ok_or(LoadError::Image(id))?;
                for page in bytes.chunks(8 + DIRTY_PAGE_BYTES as usize) {
                    let (number, content) = page.split_at_checked(8).ok_or(LoadError::Image(id))?;
                    let number = u64::from_le_bytes(number.try_into().expect("8 bytes"));
                    image.stable_pages.push((number, ByteBuf::from(content)));
                }
            }
        }
    }
    Ok((compile(saved)?, known))
}
