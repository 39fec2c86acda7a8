//! How files of a folder that others may write to are opened.

/// A flag for opening: a link is not followed.
pub const NO_FOLLOW: i32 = libc::O_NOFOLLOW;
