//! A file of records, appended one after the other and checked one by one when they are read.
//!
//! ```text
//! offset  bytes  what
//! 0       8      "OSRECS\0\2": magic and layout version
//! then, for each record:
//! +0      4      length of the record, little-endian
//! +4      4      CRC-32 of the length and the record
//! +8      n      the record
//! ```
//!
//! A process may die, and a machine may stop, in the middle of an append. So reading ends at the first
//! record that is not whole; what was synced before that is there. A file that must be whole is damaged then.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write},
    path::Path,
};

const MAGIC: [u8; 8] = *b"OSRECS\0\x02";
const HEAD_BYTES: u64 = 8;
/// The longest record: an ingress message or a blob of the server, with room to spare.
const RECORD_BYTES_MAX: u32 = u32::MAX >> 1;
const BUFFER_BYTES: usize = 1 << 20;

/// Appends records.
pub struct Writer {
    file: BufWriter<File>,
    bytes: u64,
    synced: bool,
}

impl Writer {
    /// A new file; one that is there already is emptied.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, File::create(path)?);
        file.write_all(&MAGIC)?;
        Ok(Self {
            file,
            bytes: MAGIC.len() as u64,
            synced: false,
        })
    }

    /// Goes on after the first `bytes` bytes of a file, as [`read`] has found them whole. What follows
    /// them is cut off.
    pub fn resume(path: &Path, bytes: u64) -> io::Result<Self> {
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.set_len(bytes)?;
        file.seek(SeekFrom::Start(bytes))?;
        Ok(Self {
            file: BufWriter::with_capacity(BUFFER_BYTES, file),
            bytes,
            synced: false,
        })
    }

    /// Appends a record. It is safe only after [`Writer::sync`].
    pub fn append(&mut self, record: &[u8]) -> io::Result<()> {
        let len = u32::try_from(record.len())
            .ok()
            .filter(|len| *len <= RECORD_BYTES_MAX)
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "the record is too long"))?;
        self.file.write_all(&len.to_le_bytes())?;
        self.file.write_all(&sum(len, record).to_le_bytes())?;
        self.file.write_all(record)?;
        self.bytes += HEAD_BYTES + u64::from(len);
        self.synced = false;
        Ok(())
    }

    /// Returns when everything that was appended would outlive a stop of the machine.
    pub fn sync(&mut self) -> io::Result<()> {
        if !self.synced {
            self.file.flush()?;
            self.file.get_ref().sync_data()?;
            self.synced = true;
        }
        Ok(())
    }

    /// Bytes of the file so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Hands every whole record to `take`, in order. Returns how many bytes of the file they take, for
/// [`Writer::resume`].
///
/// # Errors
/// When the file cannot be read or is of another layout, and whatever `take` fails with.
pub fn read(path: &Path, mut take: impl FnMut(Vec<u8>) -> io::Result<()>) -> io::Result<u64> {
    let mut file = BufReader::with_capacity(BUFFER_BYTES, File::open(path)?);
    let mut magic = [0; MAGIC.len()];
    file.read_exact(&mut magic)?;
    if magic != MAGIC {
        let text = format!(
            "{} has another layout than this version reads",
            path.display()
        );
        return Err(io::Error::new(ErrorKind::InvalidData, text));
    }
    let mut bytes = MAGIC.len() as u64;
    while let Some(record) = next(&mut file)? {
        bytes += HEAD_BYTES + record.len() as u64;
        take(record)?;
    }
    Ok(bytes)
}

/// As [`read`], of a file that was synced whole.
///
/// # Errors
/// When something in it is not a record, too: then it was damaged afterwards.
pub fn read_whole(path: &Path, take: impl FnMut(Vec<u8>) -> io::Result<()>) -> io::Result<()> {
    let bytes = read(path, take)?;
    if bytes == path.metadata()?.len() {
        return Ok(());
    }
    let text = format!("{} is damaged at byte {bytes}", path.display());
    Err(io::Error::new(ErrorKind::InvalidData, text))
}

/// The next record; none where no whole one follows.
fn next(file: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; HEAD_BYTES as usize];
    if !fill(file, &mut head)? {
        return Ok(None);
    }
    let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("4 bytes"));
    let (len, expected) = (number(0), number(4));
    if len > RECORD_BYTES_MAX {
        return Ok(None);
    }
    // Grows with what is there: a torn length does not take its memory.
    let mut record = vec![];
    file.take(len.into()).read_to_end(&mut record)?;
    let whole = record.len() == len as usize && sum(len, &record) == expected;
    Ok(whole.then_some(record))
}

/// False where the file ends before.
fn fill(file: &mut impl Read, into: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(into) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn sum(len: u32, record: &[u8]) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(&len.to_le_bytes());
    hash.update(record);
    hash.finalize()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn records(path: &Path) -> (Vec<Vec<u8>>, u64) {
        let mut records = vec![];
        let bytes = read(path, |record| {
            records.push(record);
            Ok(())
        });
        (records, bytes.expect("the file can be read"))
    }

    #[test]
    fn a_file_cut_anywhere_has_the_records_before_the_cut_and_goes_on_from_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records");
        let all = [b"one".to_vec(), vec![], vec![7; 300]];
        let mut writer = Writer::create(&path).unwrap();
        let mut ends = vec![writer.bytes()];
        for record in &all {
            writer.append(record).unwrap();
            ends.push(writer.bytes());
        }
        writer.sync().unwrap();
        let whole = fs::read(&path).unwrap();
        assert_eq!(whole.len() as u64, writer.bytes());

        for cut in MAGIC.len()..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (read, bytes) = records(&path);
            let count = ends.iter().filter(|end| **end <= cut as u64).count() - 1;
            assert_eq!(
                (read.as_slice(), bytes),
                (&all[..count], ends[count]),
                "cut at {cut}"
            );
            let mut writer = Writer::resume(&path, bytes).unwrap();
            writer.append(b"more").unwrap();
            writer.sync().unwrap();
            let (read, _) = records(&path);
            assert_eq!(read[..count], all[..count]);
            assert_eq!(read[count..], [b"more".to_vec()]);
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_reading_before_its_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records");
        let mut writer = Writer::create(&path).unwrap();
        writer.append(b"first").unwrap();
        let first_end = writer.bytes() as usize;
        writer.append(b"second").unwrap();
        writer.sync().unwrap();
        let whole = fs::read(&path).unwrap();
        for bit in first_end * 8..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bytes).unwrap();
            assert_eq!(records(&path).0, [b"first".to_vec()], "bit {bit}");
        }
    }

    #[test]
    fn another_layout_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records");
        fs::write(&path, b"OSRECS\0\x01").unwrap();
        let error = read(&path, |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("another layout"), "{error}");
    }
}
