//! Position of a pipeline, its sources, and where reading begins.

use crate::spec::error::SpecError;
use serde::{Deserialize, Serialize};
use weir_types::{TopicName, format_time, parse_time};

/// Position of a pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum At {
    /// In-line: before a record is stored.
    #[default]
    Ingest,
    /// Log pipeline: reads stored records.
    Log,
}

/// Source topics of a pipeline, written as a name or as a list of names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OneOrMany", into = "OneOrMany")]
pub struct Sources(pub(super) Vec<TopicName>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(TopicName),
    Many(Vec<TopicName>),
}

impl From<OneOrMany> for Sources {
    fn from(topics: OneOrMany) -> Self {
        match topics {
            OneOrMany::One(topic) => Self(vec![topic]),
            OneOrMany::Many(topics) => Self(topics),
        }
    }
}

impl From<Sources> for OneOrMany {
    fn from(Sources(mut topics): Sources) -> Self {
        match topics.len() {
            1 => Self::One(topics.remove(0)),
            _ => Self::Many(topics),
        }
    }
}

impl FromIterator<TopicName> for Sources {
    fn from_iter<I: IntoIterator<Item = TopicName>>(topics: I) -> Self {
        Self(topics.into_iter().collect())
    }
}

impl Sources {
    /// Iterates over the sources. A module knows each source by its index.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &TopicName> {
        self.0.iter()
    }

    /// Returns true if `topic` is a source.
    pub fn contains(&self, topic: &str) -> bool {
        self.0.iter().any(|name| name.as_str() == topic)
    }

    /// Returns the first source, or an empty text. The dead-letter topic is named after the first source.
    pub fn first(&self) -> &str {
        self.0.first().map_or("", TopicName::as_str)
    }
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenOrigin", into = "WrittenOrigin")]
pub enum Origin {
    /// At the first stored record.
    Start,
    /// After the last stored record.
    End,
    /// At this offset, on each partition.
    Offset(u64),
    /// At the first record at or after this time, in milliseconds since 1970.
    Time(i64),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WrittenOrigin {
    Offset(u64),
    Text(String),
}

impl std::str::FromStr for Origin {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        match text {
            "start" => Ok(Self::Start),
            "end" => Ok(Self::End),
            text => {
                let offset = text.parse().ok().map(Self::Offset);
                let ms = parse_time(text).ok();
                offset
                    .or(ms.map(Self::Time))
                    .ok_or_else(|| SpecError::Origin(text.to_owned()))
            }
        }
    }
}

impl TryFrom<WrittenOrigin> for Origin {
    type Error = SpecError;

    fn try_from(written: WrittenOrigin) -> Result<Self, SpecError> {
        match written {
            WrittenOrigin::Offset(offset) => Ok(Self::Offset(offset)),
            WrittenOrigin::Text(text) => text.parse(),
        }
    }
}

impl From<Origin> for WrittenOrigin {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Start => Self::Text("start".to_owned()),
            Origin::End => Self::Text("end".to_owned()),
            Origin::Offset(offset) => Self::Offset(offset),
            Origin::Time(ms) => Self::Text(format_time(ms)),
        }
    }
}
