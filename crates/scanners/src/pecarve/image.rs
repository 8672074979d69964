//! The headers of a PE image (Microsoft's "PE Format"), read with nothing but bounds checks.
//!
//! Reading is allocation-free up to a fixed number of sections, so that a hostile header costs no more than an honest one.

/// Sections that are looked at; the loader of Windows takes no more (`MM_MAXIMUM_IMAGE_SECTIONS`).
pub(crate) const MAX_SECTIONS: usize = 96;
/// Data directories that have a meaning.
const MAX_DIRECTORIES: usize = 16;
/// Place of the certificate table among the data directories; the only one that gives a file offset.
const CERTIFICATES: usize = 4;
/// Size of the file header (COFF).
const FILE_HEADER: usize = 20;
/// Size of an entry of the section table.
const SECTION_HEADER: usize = 40;
/// Alignment of the certificate table.
const CERTIFICATE_ALIGNMENT: u64 = 8;
/// Sectors by which the loader rounds a section's place in the file.
const FILE_SECTOR: u32 = 0x200;

/// The headers of an image.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// Where the file header (after `PE\0\0`) begins.
    pub(crate) file_header: usize,
    /// `Machine`.
    pub(crate) machine: u16,
    /// `SizeOfOptionalHeader`.
    pub(crate) optional_size: u16,
    /// `Magic` of the optional header: [`PE32`] or [`PE32_PLUS`].
    pub(crate) magic: u16,
    /// Sections that are there, at most [`MAX_SECTIONS`].
    pub(crate) sections: Vec<Section>,
    /// Data directories that are there.
    pub(crate) directories: Vec<Directory>,
}

/// Optional header of 32 bit.
pub(crate) const PE32: u16 = 0x10b;
/// Optional header of 64 bit.
pub(crate) const PE32_PLUS: u16 = 0x20b;

/// A section's place in memory and in the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section {
    /// `VirtualAddress`.
    pub(crate) address: u32,
    /// `VirtualSize`.
    pub(crate) virtual_size: u32,
    /// `PointerToRawData`.
    pub(crate) raw: u32,
    /// `SizeOfRawData`.
    pub(crate) raw_size: u32,
}

/// A data directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Directory {
    /// Address in memory; in the file for certificates.
    pub(crate) address: u32,
    /// Bytes.
    pub(crate) size: u32,
}

/// How far an image reaches into the bytes that it was found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Where it ends.
    pub(crate) end: usize,
    /// A certificate table follows the sections and is part of it.
    pub(crate) certificates: bool,
    /// A section claims bytes that are not there.
    pub(crate) truncated: bool,
}

/// Two bytes, little endian.
pub(crate) fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*data.get(at..)?.first_chunk()?))
}

/// Four bytes, little endian.
pub(crate) fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*data.get(at..)?.first_chunk()?))
}

impl Image {
    /// Reads the headers at the beginning of `data`. `None` if they are not those of a PE image.
    pub(crate) fn parse(data: &[u8]) -> Option<Self> {
        if !data.starts_with(b"MZ") {
            return None;
        }
        let signature = usize::try_from(u32_at(data, 0x3c)?).ok()?;
        if data.get(signature..)?.first_chunk::<4>()? != b"PE\0\0" {
            return None;
        }
        let file_header = signature + 4;
        let optional = file_header + FILE_HEADER;
        let magic = u16_at(data, optional)?;
        if magic != PE32 && magic != PE32_PLUS {
            return None;
        }
        let optional_size = u16_at(data, file_header + 16)?;
        let sections_claimed = u16_at(data, file_header + 2)?;
        let table = optional + usize::from(optional_size);
        let wanted = usize::from(sections_claimed).min(MAX_SECTIONS);
        let sections = (0..wanted).map_while(|n| Section::parse(data, table + n * SECTION_HEADER)).collect();
        let mut image = Self {
            file_header,
            machine: u16_at(data, file_header)?,
            optional_size,
            magic,
            sections,
            directories: Vec::new(),
        };
        image.read_directories(data);
        Some(image)
    }

    /// Where the optional header begins.
    pub(crate) fn optional_header(&self) -> usize {
        self.file_header + FILE_HEADER
    }

    fn read_directories(&mut self, data: &[u8]) {
        let first = self.optional_header() + if self.magic == PE32 { 96 } else { 112 };
        let claimed = u32_at(data, first - 4).unwrap_or(0);
        let count = usize::try_from(claimed).unwrap_or(MAX_DIRECTORIES).min(MAX_DIRECTORIES);
        let directories = (0..count).map_while(|n| {
            let at = first + n * 8;
            Some(Directory { address: u32_at(data, at)?, size: u32_at(data, at + 4)? })
        });
        self.directories = directories.collect();
    }

    /// The place in the file of an address in memory.
    pub(crate) fn offset_of(&self, address: u32) -> Option<usize> {
        let section = self.sections.iter().find(|s| {
            let size = s.virtual_size.max(s.raw_size);
            address >= s.address && address - s.address < size
        });
        let offset = match section {
            Some(s) => (s.raw - s.raw % FILE_SECTOR).checked_add(address - s.address)?,
            // Before the first section memory and file are the same.
            None if self.sections.iter().all(|s| address < s.address) => address,
            None => return None,
        };
        usize::try_from(offset).ok()
    }

    /// How far the image reaches into `data`, which begins with it: to the largest of the ends of its optional header, of
    /// its sections and of its data directories, each only where it lies within `data`; and to the end of its
    /// certificate table where that comes next.
    pub(crate) fn extent(&self, data: &[u8]) -> Extent {
        let len = data.len() as u64;
        let header = (self.optional_header() as u64 + u64::from(self.optional_size)).min(len);
        let sections = self.sections.iter().map(|s| u64::from(s.raw) + u64::from(s.raw_size));
        let directories = self.directories.iter().enumerate().filter(|(n, _)| *n != CERTIFICATES);
        let directories = directories.filter_map(|(_, d)| Some(self.offset_of(d.address)? as u64 + u64::from(d.size)));
        let mut end = sections.clone().chain(directories).filter(|end| *end <= len).fold(header, u64::max);
        let truncated = sections.clone().any(|end| end > len);
        let certificates = self.directories.get(CERTIFICATES).and_then(|d| {
            let from = u64::from(d.address);
            let next = from >= end && from <= end.next_multiple_of(CERTIFICATE_ALIGNMENT);
            let stop = from + u64::from(d.size);
            (d.size > 0 && next && stop <= len).then_some(stop)
        });
        end = certificates.unwrap_or(end);
        // Not larger than `data`, so it fits.
        let end = usize::try_from(end).unwrap_or(data.len());
        Extent { end, certificates: certificates.is_some(), truncated }
    }
}

impl Section {
    fn parse(data: &[u8], at: usize) -> Option<Self> {
        Some(Self {
            virtual_size: u32_at(data, at + 8)?,
            address: u32_at(data, at + 12)?,
            raw_size: u32_at(data, at + 16)?,
            raw: u32_at(data, at + 20)?,
        })
    }
}
