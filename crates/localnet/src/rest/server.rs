//! What the server keeps: instances, gateways and blobs.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use pocket_ic::common::rest::{InstanceId, Topology};

use super::{
    blobs::Blob,
    engine::Handle,
    gateway::Gateway,
    listen::{Activity, locked},
    memory,
};
use crate::cert::SubnetKeys;

/// One network, as handlers see it.
#[derive(Clone)]
pub struct Instance {
    pub engine: Handle,
    /// Subnets neither come nor go.
    pub topology: Arc<Topology>,
    /// Of all subnets, in their order; the first is the root.
    pub keys: Arc<[SubnetKeys]>,
    /// Whether agents' envelopes are taken without looking at signatures and expiry.
    pub trusts_envelopes: bool,
}

pub struct Server {
    pub compile_cache: Option<PathBuf>,
    pub activity: Arc<Activity>,
    /// By id; none where it was deleted.
    instances: Mutex<Vec<Option<Instance>>>,
    /// By id; none where it was stopped.
    gateways: Mutex<Vec<Option<Gateway>>>,
    /// By the hash under which they were stored.
    blobs: Mutex<HashMap<Vec<u8>, Arc<Blob>>>,
}

impl Server {
    pub fn new(compile_cache: Option<PathBuf>) -> Self {
        Self {
            compile_cache,
            activity: Activity::new(),
            instances: Mutex::default(),
            gateways: Mutex::default(),
            blobs: Mutex::default(),
        }
    }

    pub fn instance(&self, id: InstanceId) -> Option<Instance> {
        locked(&self.instances).get(id)?.clone()
    }

    pub fn add_instance(&self, instance: Instance) -> InstanceId {
        push(&self.instances, instance)
    }

    /// Whether each instance is there, by id.
    pub fn instances(&self) -> Vec<bool> {
        locked(&self.instances)
            .iter()
            .map(Option::is_some)
            .collect()
    }

    /// Deletes an instance and stops its gateways; false where there is none of that id.
    pub async fn delete_instance(&self, id: InstanceId) -> bool {
        let instance = locked(&self.instances).get_mut(id).and_then(Option::take);
        let gateways: Vec<Gateway> = locked(&self.gateways)
            .iter_mut()
            .filter_map(|gateway| gateway.take_if(|gateway| gateway.instance == id))
            .collect();
        for gateway in gateways {
            gateway.listening.stop().await;
        }
        if let Some(instance) = &instance {
            instance.engine.end().await;
            // It looks at every free block, so nobody waits for it.
            tokio::task::spawn_blocking(memory::give_back);
        }
        instance.is_some()
    }

    pub fn add_gateway(&self, gateway: Gateway) -> InstanceId {
        push(&self.gateways, gateway)
    }

    /// What `show` makes of each gateway that listens.
    pub fn gateways<T>(&self, show: impl Fn(InstanceId, &Gateway) -> T) -> Vec<T> {
        let gateways = locked(&self.gateways);
        let listening = gateways.iter().enumerate();
        listening
            .filter_map(|(id, gateway)| Some(show(id, gateway.as_ref()?)))
            .collect()
    }

    /// False where there is no gateway of that id.
    pub async fn stop_gateway(&self, id: InstanceId) -> bool {
        let gateway = locked(&self.gateways).get_mut(id).and_then(Option::take);
        match gateway {
            Some(gateway) => {
                gateway.listening.stop().await;
                true
            }
            None => false,
        }
    }

    pub fn add_blob(&self, hash: Vec<u8>, blob: Blob) {
        locked(&self.blobs).insert(hash, Arc::new(blob));
    }

    pub fn blob(&self, hash: &[u8]) -> Option<Arc<Blob>> {
        locked(&self.blobs).get(hash).cloned()
    }
}

fn push<T>(list: &Mutex<Vec<Option<T>>>, item: T) -> usize {
    let mut list = locked(list);
    list.push(Some(item));
    list.len() - 1
}
