//! Which notes are about the same: their vectors, compared.

use record_event_worker::RecordView;

/// A note's place in the space of meanings: the mean of its passages', each of length 1. `None` without a vector.
pub fn place(view: &RecordView) -> Option<Vec<f32>> {
    let passages = &view.embedding.as_ref()?.vectors;
    let dimensions = passages.first()?.len();
    let mut mean = vec![0.0; dimensions];
    for passage in passages.iter().filter(|passage| passage.len() == dimensions) {
        let length = length(passage);
        if length > 0.0 {
            mean.iter_mut().zip(passage).for_each(|(sum, number)| *sum += number / length);
        }
    }
    Some(mean)
}

/// The cosine of the angle between two vectors: 1 in the same direction. `None` where they cannot be compared.
pub fn cosine(one: &[f32], other: &[f32]) -> Option<f32> {
    let product: f32 = one.iter().zip(other).map(|(one, other)| one * other).sum();
    let lengths = length(one) * length(other);
    (one.len() == other.len() && lengths > 0.0).then(|| product / lengths)
}

/// The nearest of the others, at most `count`, the nearest first.
pub fn nearest<'a>(place: &[f32], others: &'a [(String, Vec<f32>)], count: usize) -> Vec<(&'a str, f32)> {
    let compared = others.iter().filter_map(|(title, other)| Some((title.as_str(), cosine(place, other)?)));
    let mut nearest: Vec<(&str, f32)> = compared.collect();
    nearest.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    nearest.truncate(count);
    nearest
}

fn length(vector: &[f32]) -> f32 {
    vector.iter().map(|number| number * number).sum::<f32>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_the_one_in_the_same_direction_however_long_it_is() {
        let others = vec![
            ("across".to_owned(), vec![0.0, 1.0]),
            ("same".to_owned(), vec![20.0, 1.0]),
            ("opposite".to_owned(), vec![-1.0, 0.0]),
            ("of another model".to_owned(), vec![1.0]),
            ("nothing".to_owned(), vec![0.0, 0.0]),
        ];
        let found = nearest(&[1.0, 0.0], &others, 2);
        assert_eq!(found.iter().map(|(title, _)| *title).collect::<Vec<_>>(), ["same", "across"]);
        assert!(found[0].1 > 0.99 && found[1].1.abs() < 1e-6, "{found:?}");
        assert_eq!(nearest(&[1.0, 0.0], &others, 10).len(), 3);
    }
}
