//! Areas on a map.

use weir_sdk::Json;

/// Maximum corners of a polygon: each record visits all of them.
const CORNERS_MAX: usize = 1_000;

/// Latitude and longitude of the corners, in order.
#[derive(Clone, Debug)]
pub(crate) struct Polygon(Vec<(f64, f64)>);

impl Polygon {
    pub(crate) fn read(corners: Json<'_>) -> Result<Self, String> {
        let mut read = Vec::new();
        for (n, corner) in corners.items().enumerate() {
            let numbers: Vec<_> = corner.items().map(Json::number).collect();
            let [Some(lat), Some(lon)] = numbers[..] else {
                return Err(format!("has no latitude and longitude for corner {}", n + 1));
            };
            if !(-90.0..=90.0).contains(&lat) || !(-180.0..=180.0).contains(&lon) {
                return Err(format!(
                    "has corner {} at {lat}, {lon}: latitude comes first",
                    n + 1
                ));
            }
            read.push((lat, lon));
        }
        match read.len() {
            3..=CORNERS_MAX => Ok(Self(read)),
            n => Err(format!("has {n} corners; 3 to {CORNERS_MAX} are possible")),
        }
    }

    /// Returns true if a line from the point crosses the sides an odd number of times (Shimrat, "Position of
    /// point relative to polygon", 1962). A point on a side is in exactly one of two areas that share the
    /// side.
    pub(crate) fn contains(&self, lat: f64, lon: f64) -> bool {
        let befores = self.0.last().into_iter().chain(&self.0);
        let sides = befores.zip(&self.0);
        sides.fold(false, |is_in, (a, b)| {
            let crosses = (a.0 > lat) != (b.0 > lat) && lon < (b.1 - a.1) * (lat - a.0) / (b.0 - a.0) + a.1;
            is_in != crosses
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_polygon_is_refused() {
        for (text, why) in [
            ("[[1,2],[3,4]]", "has 2 corners"),
            ("[[1,2],[3],[4,5]]", "for corner 2"),
            ("[[1,2],[3,4],[95,5]]", "latitude comes first"),
            ("7", "has 0 corners"),
        ] {
            let refused = Polygon::read(Json::new(text.as_bytes())).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn neighbours_share_a_side_without_a_gap() {
        let read = |text: &str| Polygon::read(Json::new(text.as_bytes())).unwrap();
        let (left, right) = (
            read("[[0,0],[0,1],[1,1],[1,0]]"),
            read("[[0,1],[0,2],[1,2],[1,1]]"),
        );
        for n in 1..100 {
            let (lat, lon) = (f64::from(n) / 100.0, 1.0);
            assert_ne!(left.contains(lat, lon), right.contains(lat, lon));
        }
    }
}
