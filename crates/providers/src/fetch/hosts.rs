//! Which URLs an intake's references may name.

use std::net::IpAddr;

use reqwest::Url;
use stoq_api::scanner::BuildError;
use url::Host;

use super::address;
use crate::decode::MAX_URL;

/// Hosts that may be asked, and those of them that may lie in networks of one's own.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    public: Vec<Pattern>,
    private: Vec<Pattern>,
}

/// `files.example.org`, `*.example.org` (and not `example.org`), `192.0.2.7:8080`, `[2001:db8::1]`, or `*` for any.
#[derive(Debug)]
struct Pattern {
    host: Option<String>,
    below: bool,
    /// Without one, the port that the scheme has.
    port: Option<u16>,
}

/// A URL that may be asked.
#[derive(Debug)]
pub(crate) struct Allowed {
    /// The URL.
    pub(crate) url: Url,
    /// Its host may have any address, not only public ones.
    pub(crate) anywhere: bool,
}

impl Pattern {
    fn read(text: &str) -> Result<Self, BuildError> {
        let wrong =
            || BuildError(format!("{text:?} is not a host: write files.example.org, *.example.org, or host:port"));
        if text == "*" {
            return Ok(Self { host: None, below: false, port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, digits)) if !host.contains(':') || host.ends_with(']') => {
                (host, Some(digits.parse().map_err(|_| wrong())?))
            }
            _ => (text, None),
        };
        let (host, below) = host.strip_prefix("*.").map_or((host, false), |host| (host, true));
        let host = Host::parse(host).map_err(|_| wrong())?;
        if host.to_string().contains('*') || below && !matches!(host, Host::Domain(_)) {
            return Err(wrong());
        }
        Ok(Self { host: Some(host.to_string()), below, port })
    }

    fn holds(&self, url: &Url) -> bool {
        let known = url.host_str().unwrap_or_default();
        let host = match &self.host {
            None => true,
            Some(host) if self.below => known.strip_suffix(host.as_str()).is_some_and(|rest| rest.ends_with('.')),
            Some(host) => known == host,
        };
        // `Url::port` is none for the scheme's own port.
        host && self.port.map_or(url.port().is_none(), |port| url.port_or_known_default() == Some(port))
    }
}

impl Hosts {
    /// Reads the options `allow_hosts` and `allow_private`.
    pub(crate) fn read(public: &[String], private: &[String]) -> Result<Self, BuildError> {
        let read = |texts: &[String]| texts.iter().map(|text| Pattern::read(text)).collect::<Result<Vec<_>, _>>();
        let hosts = Self { public: read(public)?, private: read(private)? };
        if hosts.private.iter().any(|pattern| pattern.host.is_none()) {
            return Err(BuildError(
                "allow_private must name hosts: with \"*\" any reference could reach any of yours".into(),
            ));
        }
        Ok(hosts)
    }

    /// The URL that `text` is, if it may be asked. Its host, if it is a name, is still to be looked up; an address is
    /// checked here.
    pub(crate) fn check(&self, text: &str) -> Result<Allowed, String> {
        if text.len() > MAX_URL {
            return Err(format!("the URL is longer than {MAX_URL} bytes"));
        }
        // The standard for URLs drops some of these and takes others for a slash.
        if let Some(odd) = text.chars().find(|c| c.is_control() || c.is_whitespace() || *c == '\\') {
            return Err(format!("the URL holds the character {odd:?}"));
        }
        let url = Url::parse(text).map_err(|e| format!("not a URL: {e}"))?;
        self.check_parsed(url)
    }

    /// As [`Hosts::check`], for where a redirect leads.
    pub(crate) fn check_parsed(&self, url: Url) -> Result<Allowed, String> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("the scheme {:?} is neither http nor https", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("the URL holds credentials".to_owned());
        }
        let shown = url.host_str().unwrap_or_default();
        let shown = url.port().map_or(shown.to_owned(), |port| format!("{shown}:{port}"));
        if self.private.iter().any(|pattern| pattern.holds(&url)) {
            return Ok(Allowed { url, anywhere: true });
        }
        if !self.public.iter().any(|pattern| pattern.holds(&url)) {
            return Err(format!("the host {shown:?} is not in allow_hosts"));
        }
        let address = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            _ => None,
        };
        match address.and_then(address::special) {
            Some(what) => Err(format!("the address {shown} is {what}, and not in allow_private")),
            None => Ok(Allowed { url, anywhere: false }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn hosts_are_named_exactly() {
        let hosts = Hosts::read(
            &list(&[
                "files.example.org",
                "*.cdn.example.org",
                "alt.example.org:8443",
                "1.1.1.1",
                "B\u{fc}cher.example",
            ]),
            &list(&["10.0.0.7:8080", "intra.example.org", "[fd00::1]"]),
        )
        .unwrap();
        for allowed in [
            "http://files.example.org/a?b#c",
            "https://FILES.example.org",
            "https://files.example.org:443/",
            "https://a.cdn.example.org/",
            "https://a.b.cdn.example.org/",
            "https://alt.example.org:8443/",
            "http://1.1.1.1/",
            "http://0x01010101/",
            "http://b\u{fc}cher.example/",
            "http://xn--bcher-kva.example/",
            "http://10.0.0.7:8080/x",
            "http://intra.example.org/",
            "http://[fd00::1]/",
        ] {
            assert!(hosts.check(allowed).is_ok(), "{allowed}: {:?}", hosts.check(allowed));
        }
        for (refused, says) in [
            ("http://example.org/", "not in allow_hosts"),
            ("http://cdn.example.org/", "not in allow_hosts"),
            ("http://evilcdn.example.org/", "not in allow_hosts"),
            ("http://files.example.org.evil.example/", "not in allow_hosts"),
            ("http://files.example.org./", "not in allow_hosts"),
            ("http://files.example.org:8080/", "\"files.example.org:8080\" is not in allow_hosts"),
            ("https://files.example.org:80/", "not in allow_hosts"),
            ("https://alt.example.org/", "not in allow_hosts"),
            ("http://files.example.org@evil.example/", "credentials"),
            ("http://user:secret@files.example.org/", "credentials"),
            ("http://files.example.org\\@evil.example/", "the character"),
            ("http://files.exam\tple.org/", "the character"),
            ("ftp://files.example.org/", "neither http nor https"),
            ("file:///etc/passwd", "neither http nor https"),
            ("gopher://127.0.0.1:6379/_x", "neither http nor https"),
            ("files.example.org/a", "not a URL"),
            ("http://", "not a URL"),
            ("http://[fe80::1%25eth0]/", "not a URL"),
            ("http://10.0.0.7/", "not in allow_hosts"),
            ("http://256.256.256.256/", "not a URL"),
        ] {
            let error = hosts.check(refused).unwrap_err();
            assert!(error.contains(says), "{refused}: {error}");
        }
        let anywhere = |url| hosts.check(url).unwrap().anywhere;
        assert!(anywhere("http://intra.example.org/") && !anywhere("http://files.example.org/"));
    }

    #[test]
    fn any_host_is_any_public_one() {
        let hosts = Hosts::read(&list(&["*"]), &[]).unwrap();
        assert!(hosts.check("https://example.org/").is_ok());
        for (refused, says) in [
            ("http://127.0.0.1/", "loopback"),
            ("http://0177.0.0.1/", "loopback"),
            ("http://2130706433/", "loopback"),
            ("http://0x7f.1/", "loopback"),
            ("http://127.1/", "loopback"),
            ("http://169.254.169.254/latest/meta-data/", "link-local"),
            ("http://[::1]/", "loopback"),
            ("http://[::ffff:127.0.0.1]/", "form of IPv6"),
            ("http://[::ffff:7f00:1]/", "form of IPv6"),
            ("http://0/", "this host"),
            ("http://example.org:22/", "not in allow_hosts"),
        ] {
            let error = hosts.check(refused).unwrap_err();
            assert!(error.contains(says), "{refused}: {error}");
        }
    }

    #[test]
    fn patterns_are_checked_at_the_start() {
        for wrong in ["http://example.org", "a b", "host:port", "*.10.0.0.1", "", "*.*", "[::1"] {
            assert!(Hosts::read(&list(&[wrong]), &[]).is_err(), "{wrong:?}");
        }
        assert!(Hosts::read(&[], &list(&["*"])).is_err());
    }
}
