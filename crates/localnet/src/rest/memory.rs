//! How the process holds memory.
//!
//! Each chunk that a client sends is a few buffers of megabytes for a moment. The system's allocator gives
//! such buffers back to the kernel when they are freed, and the kernel clears every page of the next ones:
//! that took a third of the server's time. So they are kept, and given back when an instance goes.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod system {
    use std::ffi::c_int;

    /// Buffers below this size are kept when they are freed: the most that the allocator's own heaps hold.
    const KEPT_BYTES_MAX: c_int = 32 << 20;
    /// Free memory at the end of a heap that is kept.
    const FREE_BYTES_MAX: c_int = 256 << 20;

    // Source: malloc.h of the GNU C library.
    const M_TRIM_THRESHOLD: c_int = -1;
    const M_MMAP_THRESHOLD: c_int = -3;

    unsafe extern "C" {
        safe fn mallopt(parameter: c_int, value: c_int) -> c_int;
        safe fn malloc_trim(pad: usize) -> c_int;
    }

    pub fn keep_freed() {
        // What is not taken is as it was before.
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES_MAX);
        mallopt(M_TRIM_THRESHOLD, FREE_BYTES_MAX);
    }

    pub fn give_back() {
        malloc_trim(0);
    }
}

/// Other systems' allocators know best.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod system {
    pub fn keep_freed() {}
    pub fn give_back() {}
}

pub use system::{give_back, keep_freed};
