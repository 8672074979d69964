//! What the system's notices say of files.

use std::path::PathBuf;

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{Event, EventKind};

/// One thing that a notice says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Whoever wrote this file closed it, or it was moved here whole.
    Complete(PathBuf),
    /// Somebody makes or writes this file.
    Written(PathBuf),
    /// Something happened that only a listing can tell.
    Unclear,
}

/// What `event` says; nothing for what does not matter here, such as our own reading.
pub(super) fn seen(event: Event) -> Vec<Seen> {
    if event.need_rescan() {
        return vec![Seen::Unclear];
    }
    let say: fn(PathBuf) -> Seen = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Seen::Complete,
        EventKind::Create(CreateKind::File) | EventKind::Modify(ModifyKind::Data(_)) => Seen::Written,
        // Files may have come into a new directory before it was watched. Systems that say less say `Any`.
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Any | ModifyKind::Name(RenameMode::Any)) => {
            return vec![Seen::Unclear];
        }
        _ => return Vec::new(),
    };
    event.paths.into_iter().map(say).collect()
}

#[cfg(test)]
mod tests {
    use notify::event::{DataChange, Flag, MetadataKind, RemoveKind};

    use super::*;

    fn check(kind: EventKind, expected: &[Seen]) {
        assert_eq!(seen(Event::new(kind).add_path("/a".into())), expected, "{kind:?}");
    }

    #[test]
    fn only_a_closed_or_moved_file_is_complete() {
        let complete = [Seen::Complete("/a".into())];
        let written = [Seen::Written("/a".into())];
        check(EventKind::Access(AccessKind::Close(AccessMode::Write)), &complete);
        check(EventKind::Modify(ModifyKind::Name(RenameMode::To)), &complete);
        check(EventKind::Create(CreateKind::File), &written);
        check(EventKind::Modify(ModifyKind::Data(DataChange::Any)), &written);
        check(EventKind::Create(CreateKind::Folder), &[Seen::Unclear]);
        for kind in [
            EventKind::Access(AccessKind::Close(AccessMode::Read)),
            EventKind::Access(AccessKind::Open(AccessMode::Any)),
            EventKind::Modify(ModifyKind::Name(RenameMode::From)),
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)),
            EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any)),
            EventKind::Remove(RemoveKind::File),
        ] {
            check(kind, &[]);
        }
        assert_eq!(seen(Event::new(EventKind::Other).set_flag(Flag::Rescan)), [Seen::Unclear]);
    }
}
