//! Kafka's jars, fetched once per machine by Maven into the cache that all stacks share. A folder
//! under its final name is complete.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::install::{self, Installer, find_program};

/// Brokers of 4.x need Java 17 or newer.
const VERSION: &str = "4.3.1";

pub(super) fn libs() -> Result<PathBuf> {
    Ok(install::cache_dir()?.join(format!("kafka-{VERSION}")).join("libs"))
}

pub(super) fn install(installer: &Installer) -> Result<()> {
    installer.apt(&["openjdk-17-jre-headless"], || find_program("java").is_some())?;
    let libs = libs()?;
    if libs.is_dir() {
        return Ok(());
    }
    installer.apt(&["maven"], || find_program("mvn").is_some())?;

    let home = libs.parent().context("the jars have a folder")?;
    fs::create_dir_all(home).with_context(|| format!("create {}", home.display()))?;
    let draft = tempfile::Builder::new().prefix("download-").tempdir_in(home);
    let draft = draft.with_context(|| format!("create a folder in {}", home.display()))?;
    let pom = draft.path().join("pom.xml");
    fs::write(&pom, POM.replace("{version}", VERSION)).context("write the list of jars")?;

    let step = installer.progress.step("kafka", &format!("downloading Kafka {VERSION}, 54 MB"));
    let fetched = draft.path().join("libs");
    installer.run(maven(&pom, &fetched), &step).with_context(|| {
        format!("download Kafka {VERSION} with Maven (it needs to reach its repository)")
    })?;
    install::publish(&fetched, &libs)?;
    step.done(&format!("downloaded Kafka {VERSION} to {}", libs.display()));
    Ok(())
}

fn maven(pom: &Path, target: &Path) -> Command {
    let mut command = Command::new("mvn");
    let mut output = std::ffi::OsString::from("-DoutputDirectory=");
    output.push(target);
    command
        .args(["--batch-mode", "--file"])
        .arg(pom)
        .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(output);
    command
}

/// Without a binding, slf4j drops every log line; this one writes to standard error. Its version
/// follows the slf4j that Kafka brings.
const POM: &str = r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>order-stack</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{version}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka-tools</artifactId>
      <version>{version}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"#;
