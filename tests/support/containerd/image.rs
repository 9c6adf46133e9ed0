//! The one image of the tests, from scratch: a static program that waits. No registry is asked for anything.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::run;

/// The image's name: sandboxes and containers are made of it.
pub const IMAGE: &str = "segprobe.test/pause:1";

/// Builds the image as an OCI archive, for `ctr images import`.
pub fn build() -> Vec<u8> {
    let directory = tempfile::Builder::new().prefix("segprobe-test-").tempdir().unwrap();
    let (rootfs, layout) = (directory.path().join("rootfs"), directory.path().join("layout"));
    let blobs = layout.join("blobs/sha256");
    fs::create_dir(&rootfs).unwrap();
    fs::create_dir_all(&blobs).unwrap();

    let source = directory.path().join("pause.c");
    fs::write(&source, include_str!("pause.c")).unwrap();
    run(Command::new("cc").args(["-static", "-Os", "-s", "-o"]).arg(rootfs.join("pause")).arg(source));

    let layer = add(&blobs, "application/vnd.oci.image.layer.v1.tar", &tar(&rootfs));
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = add(&blobs, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]});
    let mut manifest = add(&blobs, kind, manifest.to_string().as_bytes());
    manifest["annotations"] = json!({"io.containerd.image.name": IMAGE});

    fs::write(layout.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string()).unwrap();
    fs::write(layout.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string()).unwrap();
    tar(&layout)
}

/// Puts a blob into the layout and gives its descriptor.
fn add(blobs: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let digest = hex::encode(Sha256::digest(bytes));
    fs::write(blobs.join(&digest), bytes).unwrap();
    json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()})
}

fn tar(directory: &Path) -> Vec<u8> {
    run(Command::new("tar")
        .args(["--owner=0", "--group=0", "--numeric-owner", "-cf", "-", "-C"])
        .arg(directory)
        .arg("."))
}

/// As the registries call it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
