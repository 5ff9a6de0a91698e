//! A network whose inputs are kept on disk, or that is in memory only.

use std::{io, ops::Deref, path::Path};

use candid::Principal;
use thiserror::Error;

use super::{
    folder::Folder,
    image::{self, Known},
    records::Writer,
};
use crate::{
    cert,
    machine::{STABLE_PAGE_BYTES, StableMemory},
    network::{
        Config, Ingress, Input, LoadError, MessageId, Network, Output, Plan, PlanError, Reject,
        StillRunning, SubnetKind, TimeGoesBack,
    },
};

/// A checkpoint is made when the journal has so many bytes or inputs: a restart does no more again.
const JOURNAL_BYTES_MAX: u64 = 256 << 20;
const JOURNAL_INPUTS_MAX: u64 = 50_000;

/// Why a folder's network cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("the state cannot be read or written: {0}")]
    Io(#[from] io::Error),
    #[error("the state cannot be loaded: {0}")]
    Load(#[from] LoadError),
    #[error("the journal has an input that this version does not know: {0}")]
    Input(postcard::Error),
    #[error(
        "the folder keeps a network of the subnets {kept:?}, not {asked:?}: ask for none, or the same"
    )]
    Subnets {
        kept: Vec<SubnetKind>,
        asked: Vec<SubnetKind>,
    },
    #[error("the folder keeps nothing yet, and a new network needs at least one subnet")]
    NoSubnets,
}

/// A network. It is read as it is, and changed only by what is written down: there is no other way to
/// change it.
pub struct Kept {
    network: Network,
    disk: Option<Disk>,
}

struct Disk {
    folder: Folder,
    journal: Writer,
    inputs: u64,
    known: Known,
    /// The first write that failed. Nothing that came after it may be acknowledged.
    failure: Option<io::Error>,
}

impl Kept {
    /// A new network, in memory only.
    ///
    /// # Panics
    /// Without any subnet.
    pub fn in_memory(config: Config) -> Self {
        Self {
            network: Network::new(config),
            disk: None,
        }
    }

    /// The network that a folder keeps; a new one where it keeps none.
    pub fn open(path: &Path, config: Config) -> Result<Self, OpenError> {
        let mut folder = Folder::open(path)?;
        if folder.is_new() {
            if config.subnets.is_empty() {
                return Err(OpenError::NoSubnets);
            }
            let mut known = Known::default();
            let network = Network::new(config);
            let journal = image::checkpoint(&mut folder, &network, &mut known)?;
            return Ok(Self::on_disk(network, folder, journal, 0, known));
        }
        let cache = config.compile_cache.as_deref();
        let (mut network, known) = image::load(&folder, |saved| Network::load(saved, cache))?;
        let kept: Vec<_> = network.subnets().iter().map(|subnet| subnet.kind).collect();
        if !config.subnets.is_empty() && config.subnets != kept {
            let asked = config.subnets;
            return Err(OpenError::Subnets { kept, asked });
        }
        let (mut inputs, mut unknown) = (0, None);
        let journal = folder.journal(|record| {
            match postcard::from_bytes(&record) {
                Ok(input) => drop(network.apply(input)),
                Err(error) => drop(unknown.get_or_insert(error)),
            }
            inputs += 1;
            Ok(())
        })?;
        match unknown {
            Some(error) => Err(OpenError::Input(error)),
            None => Ok(Self::on_disk(network, folder, journal, inputs, known)),
        }
    }

    fn on_disk(
        network: Network,
        folder: Folder,
        journal: Writer,
        inputs: u64,
        known: Known,
    ) -> Self {
        let disk = Disk {
            folder,
            journal,
            inputs,
            known,
            failure: None,
        };
        Self {
            network,
            disk: Some(disk),
        }
    }

    /// Returns when everything that was done so far would outlive a stop of the machine. What was done
    /// is to be acknowledged only then.
    pub fn sync(&mut self) -> io::Result<()> {
        let Some(disk) = &mut self.disk else {
            return Ok(());
        };
        if let Some(error) = disk.failure.take() {
            return Err(error);
        }
        disk.journal.sync()?;
        if disk.journal.bytes() > JOURNAL_BYTES_MAX || disk.inputs > JOURNAL_INPUTS_MAX {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Keeps the state as it is now, so that a restart has nothing to do again.
    pub fn checkpoint(&mut self) -> io::Result<()> {
        let Some(disk) = &mut self.disk else {
            return Ok(());
        };
        disk.journal = image::checkpoint(&mut disk.folder, &self.network, &mut disk.known)?;
        disk.inputs = 0;
        Ok(())
    }

    fn apply(&mut self, input: Input) -> Output {
        if let Some(disk) = &mut self.disk {
            let written = postcard::to_stdvec(&input)
                .map_err(io::Error::other)
                .and_then(|record| disk.journal.append(&record));
            disk.inputs += 1;
            if let Err(error) = written {
                disk.failure.get_or_insert(error);
            }
        }
        self.network.apply(input)
    }

    pub fn submit(&mut self, ingress: Ingress) -> Result<MessageId, Reject> {
        match self.apply(Input::Submit(ingress)) {
            Output::Submitted(submitted) => submitted,
            other => unexpected(&other),
        }
    }

    pub fn submit_as(
        &mut self,
        id: MessageId,
        expiry_ns: u64,
        ingress: Ingress,
    ) -> Result<(), Reject> {
        let input = Input::SubmitAs {
            id,
            expiry_ns,
            ingress,
        };
        match self.apply(input) {
            Output::Submitted(submitted) => submitted.map(drop),
            other => unexpected(&other),
        }
    }

    pub fn tick(&mut self) {
        self.apply(Input::Tick);
    }

    pub fn set_time(&mut self, time_ns: u64) -> Result<(), TimeGoesBack> {
        match self.apply(Input::SetTime(time_ns)) {
            Output::SetTime(set) => set,
            other => unexpected(&other),
        }
    }

    pub fn add_cycles(&mut self, canister: &Principal, cycles: u128) -> Option<u128> {
        let canister = *canister;
        match self.apply(Input::AddCycles { canister, cycles }) {
            Output::Cycles(balance) => balance,
            other => unexpected(&other),
        }
    }

    /// An image that is longer than the journal may be is kept by a checkpoint instead.
    pub fn set_stable_memory(&mut self, canister: &Principal, memory: StableMemory) -> bool {
        let bytes = memory.size_pages() * STABLE_PAGE_BYTES;
        if self.disk.is_none() || bytes > JOURNAL_BYTES_MAX {
            let found = self.network.set_stable_memory(canister, memory);
            let kept = self.checkpoint();
            if let (Some(disk), Err(error)) = (&mut self.disk, kept) {
                disk.failure.get_or_insert(error);
            }
            return found;
        }
        let (canister, bytes) = (*canister, memory.to_bytes());
        match self.apply(Input::SetStableMemory { canister, bytes }) {
            Output::Found(found) => found,
            other => unexpected(&other),
        }
    }

    pub fn delete_subnet(&mut self, subnet: &Principal) -> bool {
        match self.apply(Input::DeleteSubnet(*subnet)) {
            Output::Found(found) => found,
            other => unexpected(&other),
        }
    }

    pub fn set_faults(&mut self, plan: Plan) -> Result<(), PlanError> {
        match self.apply(Input::SetFaults(plan)) {
            Output::Faults(set) => set,
            other => unexpected(&other),
        }
    }

    pub fn keep_accounts(&mut self, capacity: usize) {
        self.apply(Input::KeepAccounts(capacity));
    }

    /// Runs rounds until the message is answered, as [`Network::await_ingress`].
    pub fn await_ingress(
        &mut self,
        message: &MessageId,
    ) -> Result<Result<Vec<u8>, Reject>, StillRunning> {
        match self.apply(Input::Await(*message)) {
            Output::Answered(answer) => answer,
            other => unexpected(&other),
        }
    }

    /// A query changes nothing that has to be kept.
    pub fn query_as(&mut self, query: Ingress) -> Result<Vec<u8>, Reject> {
        self.network.query_as(query)
    }

    /// Neither does a certificate: it is made of what is there.
    pub fn certificate(&mut self, effective: &Principal, paths: &[cert::Path]) -> Vec<u8> {
        self.network.certificate(effective, paths)
    }
}

impl Deref for Kept {
    type Target = Network;

    fn deref(&self) -> &Network {
        &self.network
    }
}

fn unexpected(output: &Output) -> ! {
    unreachable!("the input does not give {output:?}")
}
