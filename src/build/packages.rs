//! What is installed in an image, by its own package databases: dpkg's and apk's.

use super::tree::Tree;
use std::io::Read;
use std::path::Path;

const DATABASE_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Package {
    /// As in package URLs: `deb`, `apk`.
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) architecture: String,
    /// SPDX's, where the database has one.
    pub(super) license: Option<String>,
    pub(super) supplier: Option<String>,
}

/// The distribution: `ID` and `VERSION_ID` of os-release.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Distribution {
    pub(super) id: String,
    pub(super) version: String,
}

impl Package {
    /// `pkg:deb/debian/bash@5.2-1?arch=amd64&distro=debian-13`.
    pub(super) fn url(&self, distribution: &Distribution) -> String {
        let Distribution { id, version } = distribution;
        let namespace = if id.is_empty() { String::new() } else { format!("{}/", encoded(id)) };
        let (name, own) = (encoded(&self.name), encoded(&self.version));
        let mut url =
            format!("pkg:{}/{namespace}{name}@{own}?arch={}", self.kind, encoded(&self.architecture));
        if !id.is_empty() && !version.is_empty() {
            url += &format!("&distro={}-{}", encoded(id), encoded(version));
        }
        url
    }
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

/// All that is installed, sorted; what cannot be read is not there.
pub(super) fn installed(tree: &Tree) -> (Distribution, Vec<Package>) {
    let mut packages = dpkg(&text(tree, "var/lib/dpkg/status").unwrap_or_default());
    for name in names(tree, "var/lib/dpkg/status.d") {
        packages.extend(dpkg(&text(tree, &format!("var/lib/dpkg/status.d/{name}")).unwrap_or_default()));
    }
    packages.extend(apk(&text(tree, "lib/apk/db/installed").unwrap_or_default()));
    packages.sort_by(|a, b| (a.kind, &a.name, &a.version).cmp(&(b.kind, &b.name, &b.version)));
    packages.dedup();
    let release = text(tree, "etc/os-release").or_else(|| text(tree, "usr/lib/os-release"));
    (distribution(&release.unwrap_or_default()), packages)
}

fn text(tree: &Tree, path: &str) -> Option<String> {
    let real = tree.resolve(Path::new(path), true).ok()?;
    let mut bytes = Vec::new();
    tree.file(&real).ok()?.take(DATABASE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn names(tree: &Tree, path: &str) -> Vec<String> {
    let real = tree.resolve(Path::new(path), true).unwrap_or_default();
    if real.as_os_str().is_empty() {
        return Vec::new();
    }
    let names = tree.names(&real).unwrap_or_default().into_iter().filter_map(|name| name.into_string().ok());
    names.filter(|name| !name.ends_with(".md5sums")).collect()
}

fn distribution(release: &str) -> Distribution {
    let value = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
    };
    Distribution { id: value("ID"), version: value("VERSION_ID") }
}

/// A field of a paragraph; lines that go on are not part of it.
fn field<'a>(paragraph: &'a str, key: &str) -> Option<&'a str> {
    paragraph.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}

fn dpkg(status: &str) -> Vec<Package> {
    let package = |paragraph: &str| {
        // What was removed leaves its configuration behind.
        if field(paragraph, "Status").is_some_and(|status| !status.ends_with(" installed")) {
            return None;
        }
        Some(Package {
            kind: "deb",
            name: field(paragraph, "Package")?.to_owned(),
            version: field(paragraph, "Version")?.to_owned(),
            architecture: field(paragraph, "Architecture").unwrap_or("all").to_owned(),
            license: None,
            supplier: field(paragraph, "Maintainer").map(str::to_owned),
        })
    };
    status.split("\n\n").filter_map(package).collect()
}

fn apk(installed: &str) -> Vec<Package> {
    let package = |paragraph: &str| {
        Some(Package {
            kind: "apk",
            name: field(paragraph, "P")?.to_owned(),
            version: field(paragraph, "V")?.to_owned(),
            architecture: field(paragraph, "A").unwrap_or("noarch").to_owned(),
            license: field(paragraph, "L").filter(|text| !text.is_empty()).map(str::to_owned),
            supplier: field(paragraph, "m").map(str::to_owned),
        })
    };
    installed.split("\n\n").filter_map(package).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().expect("below")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        write("usr/lib/os-release", "NAME=\"X\"\nID=debian\nVERSION_ID=\"13\"\n");
        write(
            "var/lib/dpkg/status",
            "Package: libstdc++6\nStatus: install ok installed\nMaintainer: A <a@b.c>\nArchitecture: amd64\nVersion: 1:2~3+b\nDescription: x\n Version: 9\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n",
        );
        write("var/lib/dpkg/status.d/tzdata", "Package: tzdata\nVersion: 2025\nArchitecture: all\n");
        write("usr/lib/apk/db/installed", "C:Q1\nP:musl\nV:1.2-r0\nA:x86_64\nL:MIT\nF:lib\n\nP:zlib\nV:1\n");
        std::os::unix::fs::symlink("usr/lib", directory.path().join("lib")).expect("linked");
        let tree = Tree::open(directory.path()).expect("opened");
        let (distribution, packages) = installed(&tree);
        let urls: Vec<String> = packages.iter().map(|package| package.url(&distribution)).collect();
        assert_eq!(
            urls,
            [
                "pkg:apk/debian/musl@1.2-r0?arch=x86_64&distro=debian-13",
                "pkg:apk/debian/zlib@1?arch=noarch&distro=debian-13",
                "pkg:deb/debian/libstdc%2B%2B6@1%3A2~3%2Bb?arch=amd64&distro=debian-13",
                "pkg:deb/debian/tzdata@2025?arch=all&distro=debian-13",
            ]
        );
        assert_eq!(packages[0].license.as_deref(), Some("MIT"));
        assert_eq!(packages[2].supplier.as_deref(), Some("A <a@b.c>"));
    }

    #[test]
    fn nothing_installed_is_no_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let tree = Tree::open(directory.path()).expect("opened");
        assert_eq!(installed(&tree), (Distribution::default(), Vec::new()));
    }
}
