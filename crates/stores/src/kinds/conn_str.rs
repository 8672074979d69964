//! Connection strings of Azure: see
//! <https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string>.

use std::collections::BTreeMap;

use stoq_api::scanner::BuildError;
use stoq_runtime::secret::Secret;

/// What a connection string says.
pub(super) struct Said {
    pub(super) account: String,
    pub(super) endpoint: String,
    pub(super) access_key: Option<Secret>,
    pub(super) sas_token: Option<Secret>,
}

/// Reads one. Nothing of it is shown in messages but the names of its parts.
pub(super) fn read(text: &Secret) -> Result<Said, BuildError> {
    let mut parts = BTreeMap::new();
    for part in text.expose().split(';').filter(|part| !part.trim().is_empty()) {
        let (name, value) = part.split_once('=').ok_or_else(|| {
            BuildError("`conn_str` is no connection string: its parts are name=value, with ; between".to_owned())
        })?;
        parts.insert(name.trim().to_ascii_lowercase(), value.trim());
    }
    let part = |name: &str| parts.get(name).copied().filter(|value| !value.is_empty());
    let endpoint = part("blobendpoint").map(str::to_owned);
    // The account is the endpoint's first name, if it is not said.
    let of_host = || endpoint.as_deref().and_then(|url| url.split_once("://")?.1.split(['.', ':', '/']).next());
    let account = part("accountname").or_else(of_host);
    let account = account.ok_or_else(|| BuildError("`conn_str` names no AccountName".to_owned()))?.to_owned();
    if part("accountkey").is_none() && part("sharedaccesssignature").is_none() {
        return Err(BuildError("`conn_str` holds neither AccountKey nor SharedAccessSignature".to_owned()));
    }
    let scheme = part("defaultendpointsprotocol").unwrap_or("https");
    let suffix = part("endpointsuffix").unwrap_or("core.windows.net");
    let endpoint = endpoint.unwrap_or_else(|| format!("{scheme}://{account}.blob.{suffix}"));
    let secret = |name: &str| part(name).map(Secret::new);
    let access_key = secret("accountkey");
    let sas_token = if access_key.is_some() { None } else { secret("sharedaccesssignature") };
    Ok(Said { account, endpoint, access_key, sas_token })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_azure_writes_them() {
        let read = |text: &str| read(&Secret::new(text));
        let one =
            read("DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=a2V5PQ==;EndpointSuffix=core.windows.net")
                .unwrap();
        assert_eq!((one.account.as_str(), one.endpoint.as_str()), ("acc", "https://acc.blob.core.windows.net"));
        assert_eq!(one.access_key.unwrap().expose(), "a2V5PQ==", "the padding is part of the key");
        let signed =
            read("BlobEndpoint=https://acc.blob.core.windows.net/;SharedAccessSignature=sv=1&sig=x%3D").unwrap();
        assert_eq!((signed.account.as_str(), signed.sas_token.unwrap().expose()), ("acc", "sv=1&sig=x%3D"));
        for (text, said) in [
            ("no string", "name=value"),
            ("AccountKey=secret", "no AccountName"),
            ("AccountName=a", "neither AccountKey"),
        ] {
            let error = read(text).err().unwrap().0;
            assert!(error.contains(said) && !error.contains("=secret"), "{error}");
        }
    }
}
