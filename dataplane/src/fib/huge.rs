//! Memory in huge pages: what is read at random does not wait for the page tables too.

#![expect(
    unsafe_code,
    reason = "one system call about memory that the caller owns"
)]

use std::mem::MaybeUninit;

use nix::libc;

/// Asks the kernel for huge pages (2 MiB on x86-64) where whole ones lie inside of `room`, which was
/// not written yet. A kernel that has none to give, or none at all, changes nothing.
pub(super) fn advise<T>(room: &mut [MaybeUninit<T>]) {
    const PAGE: usize = 4096;
    let start = room.as_mut_ptr().cast::<u8>();
    let len = size_of_val(room);
    let skip = start.align_offset(PAGE);
    let Some(len) = len.checked_sub(skip) else {
        return;
    };
    let start = start.wrapping_add(skip);
    // SAFETY: the range lies inside of `room`, which is borrowed for the call; MADV_HUGEPAGE changes
    // how the kernel backs it and not what is in it.
    let refused = unsafe { libc::madvise(start.cast(), len - len % PAGE, libc::MADV_HUGEPAGE) };
    if refused != 0 {
        tracing::debug!("no huge pages for a table");
    }
}
