//! SQLite's own way to the disk, with a recorder in it: every write, truncation, sync and deletion of
//! the files of some folders goes on tape. What lies elsewhere passes through untouched.
//!
//! The file that SQLite opens stays what it is; only four of its methods are replaced. A sync is
//! recorded and not carried out: here the tape is the disk. A write or a sync fails when the tape says so.

#![expect(unsafe_code, reason = "SQLite's interface to files is C")]

use std::collections::HashMap;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use rusqlite::ffi;

use crate::power_cuts::tape::{Change, Event, Tape};

/// Records what happens in this folder, from now on until the tape is dropped.
pub fn record(folder: &Path, honest: bool) -> Arc<Tape> {
    static REGISTERED: OnceLock<()> = OnceLock::new();
    REGISTERED.get_or_init(|| {
        let recorder = Box::leak(Box::new(ffi::sqlite3_vfs {
            pNext: ptr::null_mut(),
            zName: c"recorder".as_ptr(),
            xOpen: Some(open),
            xDelete: Some(delete),
            ..*below()
        }));
        // SAFETY: it is a whole VFS, and lives as long as the process.
        let code = unsafe { ffi::sqlite3_vfs_register(recorder, 1) };
        assert_eq!(code, ffi::SQLITE_OK);
    });
    let folder = folder.canonicalize().expect("the folder is there");
    let tape = Arc::new(Tape::new(&folder, honest));
    locked(&TAPES).push(Arc::downgrade(&tape));
    tape
}

/// What SQLite uses where nobody says otherwise, as it was at first.
fn below() -> &'static ffi::sqlite3_vfs {
    struct Below(*mut ffi::sqlite3_vfs);
    // SAFETY: SQLite itself shares it among threads.
    unsafe impl Send for Below {}
    // SAFETY: the same.
    unsafe impl Sync for Below {}
    static BELOW: OnceLock<Below> = OnceLock::new();
    // SAFETY: the first one is a static of SQLite's.
    unsafe { &*BELOW.get_or_init(|| Below(ffi::sqlite3_vfs_find(ptr::null()))).0 }
}

fn below_pointer() -> *mut ffi::sqlite3_vfs {
    ptr::from_ref(below()).cast_mut()
}

static TAPES: Mutex<Vec<Weak<Tape>>> = Mutex::new(Vec::new());

/// Open files that are recorded, by their address.
static FILES: LazyLock<Mutex<HashMap<usize, Recorded>>> = LazyLock::new(Mutex::default);

struct Recorded {
    tape: Arc<Tape>,
    name: Box<str>,
    /// SQLite's own methods of it.
    own: &'static ffi::sqlite3_io_methods,
    /// What the file points to meanwhile.
    _ours: Box<ffi::sqlite3_io_methods>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tape_of(path: &Path) -> Option<(Arc<Tape>, Box<str>)> {
    let mut tapes = locked(&TAPES);
    tapes.retain(|tape| tape.strong_count() > 0);
    tapes.iter().filter_map(Weak::upgrade).find_map(|tape| tape.name_of(path).map(|name| (tape, name)))
}

/// A recorded file's tape and name, and SQLite's own methods of it.
fn recorded(file: *mut ffi::sqlite3_file) -> (Arc<Tape>, Box<str>, &'static ffi::sqlite3_io_methods) {
    let files = locked(&FILES);
    let file = files.get(&file.addr()).expect("only recorded files have these methods");
    (Arc::clone(&file.tape), file.name.clone(), file.own)
}

/// SAFETY: as SQLite calls it, with a path that ends with a zero byte, or null.
unsafe fn path_of<'a>(name: *const c_char) -> Option<&'a Path> {
    // SAFETY: the caller's promise.
    (!name.is_null()).then(|| Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes())))
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    let open = below().xOpen.expect("every VFS can open");
    // SAFETY: SQLite's own call, handed on; `szOsFile` is that of the VFS below.
    let code = unsafe { open(below_pointer(), name, file, flags, flags_out) };
    if code != ffi::SQLITE_OK {
        return code;
    }
    // SAFETY: SQLite's own path.
    let Some((tape, name)) = unsafe { path_of(name) }.and_then(tape_of) else { return code };
    // SAFETY: a file that was opened has methods, which are static.
    let own: &'static ffi::sqlite3_io_methods = unsafe { &*(*file).pMethods };
    let ours = Box::new(ffi::sqlite3_io_methods {
        xClose: Some(close),
        xWrite: Some(write),
        xTruncate: Some(truncate),
        xSync: Some(sync),
        ..*own
    });
    // SAFETY: the methods live in `FILES` until the file is closed, and do not move.
    unsafe { (*file).pMethods = ptr::from_ref(&*ours) };
    locked(&FILES).insert(file.addr(), Recorded { tape, name, own, _ours: ours });
    code
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    // SAFETY: SQLite's own path.
    if let Some((tape, file)) = unsafe { path_of(name) }.and_then(tape_of) {
        tape.push(Event::Change { file, change: Change::Delete });
    }
    let delete = below().xDelete.expect("every VFS can delete");
    // SAFETY: SQLite's own call, handed on.
    unsafe { delete(below_pointer(), name, sync) }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let gone = locked(&FILES).remove(&file.addr()).expect("only recorded files have these methods");
    // SAFETY: its own methods again, before the others go.
    unsafe { (*file).pMethods = gone.own };
    let close = gone.own.xClose.expect("every file can be closed");
    // SAFETY: SQLite's own call, handed on.
    unsafe { close(file) }
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, bytes: *const c_void, count: c_int, at: i64) -> c_int {
    let (tape, name, own) = recorded(file);
    if let Some(code) = tape.fails_to_write() {
        return code;
    }
    let place = usize::try_from(at).expect("SQLite writes within a file");
    let length = usize::try_from(count).expect("SQLite writes something");
    // SAFETY: SQLite says how many bytes there are.
    let written: Box<[u8]> = unsafe { std::slice::from_raw_parts(bytes.cast(), length) }.into();
    tape.push(Event::Change { file: name, change: Change::Write { at: place, bytes: written } });
    let write = own.xWrite.expect("every file can be written");
    // SAFETY: SQLite's own call, handed on.
    unsafe { write(file, bytes, count, at) }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    let (tape, name, own) = recorded(file);
    let to = usize::try_from(size).expect("no file is shorter than nothing");
    tape.push(Event::Change { file: name, change: Change::Truncate { to } });
    let truncate = own.xTruncate.expect("every file can be truncated");
    // SAFETY: SQLite's own call, handed on.
    unsafe { truncate(file, size) }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    let (tape, name, _) = recorded(file);
    if !tape.honest {
        return ffi::SQLITE_OK;
    }
    match tape.sync(&name, file.addr(), tape.position()) {
        Ok(()) => ffi::SQLITE_OK,
        Err(code) => code,
    }
}
