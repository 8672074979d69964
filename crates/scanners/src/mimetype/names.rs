//! libmagic's names for what the `file-format` crate recognises.

use std::borrow::Cow;

use file_format::FileFormat;

/// Bytes of a Matroska header in which its document type is looked for.
const EBML_HEAD: usize = 64;

/// The media type of `format` under libmagic's name, or under the crate's where libmagic has none or the same.
pub(super) fn of(format: FileFormat, content: &[u8]) -> Cow<'static, str> {
    use FileFormat as F;
    Cow::Borrowed(match format {
        F::Ace => "application/x-ace",
        F::AdvancedSystemsFormat => "video/x-ms-asf",
        F::AndroidBinaryXml => "application/vnd.android.axml",
        F::Bzip => "application/x-bzip",
        F::DalvikExecutable | F::OptimizedDalvikExecutable => "application/x-dex",
        F::EnhancedMetafile => "image/emf",
        F::ExtensibleBinaryMetaLanguage => ebml(content),
        F::Id3v2 => "audio/mpeg",
        F::JavaClass => "application/x-java-applet",
        F::Larc | F::Lha | F::Pmarc => "application/x-lzh-compressed",
        F::LinearExecutable | F::NewExecutable | F::PortableExecutable | F::DynamicLinkLibrary | F::MsDosExecutable => {
            "application/x-dosexec"
        }
        F::MetaInformationEncapsulation => "application/x-mie",
        F::Mpeg4Part14 => "video/mp4",
        F::OggMultiplexedMedia => "application/ogg",
        F::Opentype => "application/vnd.ms-opentype",
        F::PersonalStorageTable => "application/vnd.ms-outlook-pst",
        F::RichTextFormat => "text/rtf",
        F::RoshalArchive => "application/x-rar",
        F::Truetype => "font/sfnt",
        F::WaveformAudio => "audio/x-wav",
        F::XPixmap => "image/x-xpixmap",
        // Not one of them is worth more than a guess, and text has been dealt with.
        F::Empty | F::PlainText => "application/octet-stream",
        known => return known.media_type().to_owned().into(),
    })
}

/// The document type of an EBML file (RFC 8794) stands as text in its header.
fn ebml(content: &[u8]) -> &'static str {
    let head = &content[..content.len().min(EBML_HEAD)];
    let holds = |name: &[u8]| head.windows(name.len()).any(|w| w == name);
    if holds(b"webm") {
        "video/webm"
    } else if holds(b"matroska") {
        "video/x-matroska"
    } else {
        "application/x-ebml"
    }
}
