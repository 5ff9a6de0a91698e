//! State on disk: the last checkpoint, and a journal of every input since.
//!
//! The network is deterministic, so a restart is the checkpoint plus the same inputs again. An input is in
//! the journal and synced before anybody hears its answer: killing the server loses nothing that was
//! acknowledged. Many inputs share one sync.
//!
//! | file | what |
//! | --- | --- |
//! | `kept` | a network that is changed only by inputs that are written down |
//! | `image` | checkpoints: the segments of memory that changed, and how they are read |
//! | `folder` | which files are the state |
//! | `records` | a file of checked records |

mod folder;
mod image;
mod kept;
mod records;

pub use kept::{Kept, OpenError};
