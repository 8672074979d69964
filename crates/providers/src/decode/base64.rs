//! Content inside JSON.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

use super::Refusal;

/// RFC 4648 with or without padding, and nothing between the digits.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The bytes that `text` stands for; never more than it has characters.
pub(super) fn content(text: &str) -> Result<Bytes, Refusal> {
    LENIENT.decode(text).map(Bytes::from).map_err(|e| Refusal(format!("its content is not base64: {e}")))
}
