//! Weight matrices in 8 bits.
//!
//! candle's own products with quantised matrices are plain loops for `Q4_1`, `Q5_0` and for whatever is no multiple of 256
//! wide, which is nearly all there is in small models; those in 32 bits take four times the memory. These here are
//! several times as fast as the former and as frugal (`docs/adr/0013` has the figures): with many vectors at once by
//! candle's products in 32 bits, with a single one by vectors of the processor that is found at run time.
//!
//! The weights are held in 8 bits, whatever the file has: 32 of them share a scale.

#![expect(clippy::inline_always, reason = "only what is inlined is compiled for the processor that is found")]

use candle_core::{Device, Tensor, quantized::QTensor};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Weights that share a scale.
const BLOCK: usize = 32;
/// Rows that a thread takes at once. Fewer would be over sooner than another thread is awake.
const ROWS_OF_A_THREAD: usize = 64;
/// Rows that are rounded at once.
const ROWS_AT_ONCE: usize = 4096;
/// The largest code; -128 is not used, so that the codes are symmetrical.
const MAX_CODE: f32 = 127.0;

/// A matrix of weights, to be multiplied from the right.
pub(crate) struct Matrix {
    rows: usize,
    columns: usize,
    /// Row by row.
    codes: Vec<i8>,
    /// One for each block of codes.
    scales: Vec<f32>,
}

/// Why a tensor cannot be a matrix of weights.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MatrixError {
    #[error("it is {0} wide, which is no multiple of {BLOCK}")]
    Width(usize),
    #[error("it has a weight that is no finite number")]
    NotFinite,
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Matrix {
    /// The matrix of these weights, rounded to 8 bits.
    pub(crate) fn rounded(weights: &QTensor) -> Result<Self, MatrixError> {
        let (rows, columns) = weights.shape().dims2()?;
        if columns == 0 || !columns.is_multiple_of(BLOCK) {
            return Err(MatrixError::Width(columns));
        }
        let mut codes = vec![0; rows * columns];
        let mut scales = vec![0.0; rows * columns / BLOCK];
        let some = (codes.chunks_mut(ROWS_AT_ONCE * columns), scales.chunks_mut(ROWS_AT_ONCE * columns / BLOCK));
        for (index, (codes, scales)) in some.0.zip(some.1).enumerate() {
            let first = index * ROWS_AT_ONCE;
            let numbers: Vec<u32> =
                (first..first + codes.len() / columns).filter_map(|row| u32::try_from(row).ok()).collect();
            // Expanded at once, an output matrix would be half a gigabyte.
            let weights = weights.embedding(&Tensor::new(numbers, &Device::Cpu)?)?.flatten_all()?.to_vec1::<f32>()?;
            let rows = weights.par_chunks_exact(columns).zip(codes.par_chunks_exact_mut(columns));
            let finite = rows
                .zip(scales.par_chunks_exact_mut(columns / BLOCK))
                .map(|((weights, codes), scales)| vectorised(Round { weights, codes, scales }))
                .reduce(|| true, |one, other| one && other);
            if !finite {
                return Err(MatrixError::NotFinite);
            }
        }
        Ok(Self { rows, columns, codes, scales })
    }

    /// The products with each of the vectors in `x`: from `[vectors, columns]` to `[vectors, rows]`.
    pub(crate) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (vectors, _) = x.dims2()?;
        if vectors == 1 {
            let products = self.times(&x.flatten_all()?.to_vec1::<f32>()?);
            return Tensor::from_vec(products, (1, self.rows), &Device::Cpu);
        }
        // Of many vectors each weight is used many times, so that it pays to have it as candle's products want it.
        let weights = Tensor::from_vec(self.weights(), (self.rows, self.columns), &Device::Cpu)?;
        x.matmul(&weights.t()?)
    }

    fn times(&self, x: &[f32]) -> Vec<f32> {
        let mut products = vec![0.0; self.rows];
        let some = |(index, products): (usize, &mut [f32])| {
            vectorised(Multiply { matrix: self, first: index * ROWS_OF_A_THREAD, x, products });
        };
        products.par_chunks_mut(ROWS_OF_A_THREAD).enumerate().for_each(some);
        products
    }

    fn weights(&self) -> Vec<f32> {
        let mut weights = vec![0.0; self.codes.len()];
        let row = |(row, weights): (usize, &mut [f32])| {
            let (codes, scales) = self.row(row);
            vectorised(Expand { codes, scales, weights });
        };
        weights.par_chunks_exact_mut(self.columns).enumerate().with_min_len(ROWS_OF_A_THREAD).for_each(row);
        weights
    }

    fn row(&self, row: usize) -> (&[i8], &[f32]) {
        let (width, blocks) = (self.columns, self.columns / BLOCK);
        (&self.codes[row * width..][..width], &self.scales[row * blocks..][..blocks])
    }
}

/// Does work with the widest vectors that this processor has, of those it is compiled for.
fn vectorised<W: WithSimd>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = pulp::x86::V3::try_new() {
        return Simd::vectorize(avx2, work);
    }
    Arch::new().dispatch(work)
}

/// Rounds a row of weights. Tells whether all of them are finite.
struct Round<'a> {
    weights: &'a [f32],
    codes: &'a mut [i8],
    scales: &'a mut [f32],
}

impl WithSimd for Round<'_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> bool {
        let mut finite = true;
        let (weights, codes) = (self.weights.as_chunks::<BLOCK>().0, self.codes.as_chunks_mut::<BLOCK>().0);
        for ((weights, codes), scale) in weights.iter().zip(codes).zip(self.scales) {
            finite &= weights.iter().all(|weight| weight.is_finite());
            let largest = weights.iter().fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
            *scale = largest / MAX_CODE;
            let inverse = if largest > 0.0 { MAX_CODE / largest } else { 0.0 };
            #[expect(clippy::cast_possible_truncation, reason = "from -127 to 127, by the scale")]
            let round = |weight: f32| (weight * inverse).round() as i8;
            *codes = weights.map(round);
        }
        finite
    }
}

/// Multiplies some rows with a vector.
struct Multiply<'a> {
    matrix: &'a Matrix,
    first: usize,
    x: &'a [f32],
    products: &'a mut [f32],
}

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let add = |sum, one, other| simd.add_f32s(sum, simd.mul_f32s(one, other));
        let x = self.x.as_chunks::<BLOCK>().0;
        for (row, product) in (self.first..).zip(self.products) {
            let (codes, scales) = self.matrix.row(row);
            let mut sums = simd.splat_f32s(0.0);
            for ((codes, x), scale) in codes.as_chunks::<BLOCK>().0.iter().zip(x).zip(scales) {
                let weights = codes.map(f32::from);
                let mut block = simd.splat_f32s(0.0);
                for (weights, x) in S::as_simd_f32s(&weights).0.iter().zip(S::as_simd_f32s(x).0) {
                    block = add(block, *weights, *x);
                }
                sums = add(sums, block, simd.splat_f32s(*scale));
            }
            *product = simd.reduce_sum_f32s(sums);
        }
    }
}

/// Expands a row's codes to its weights.
struct Expand<'a> {
    codes: &'a [i8],
    scales: &'a [f32],
    weights: &'a mut [f32],
}

impl WithSimd for Expand<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (codes, weights) = (self.codes.as_chunks::<BLOCK>().0, self.weights.as_chunks_mut::<BLOCK>().0);
        for ((codes, weights), scale) in codes.iter().zip(weights).zip(self.scales) {
            let codes = codes.map(f32::from);
            for (weights, codes) in S::as_mut_simd_f32s(weights).0.iter_mut().zip(S::as_simd_f32s(&codes).0) {
                *weights = simd.mul_f32s(*codes, simd.splat_f32s(*scale));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::GgmlDType;

    use super::*;

    /// Numbers from -1 to 1 that look like chance.
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn numbers(rows: usize, columns: usize) -> Tensor {
        let mixed =
            |index: usize| (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 29).wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        let number = |index: usize| (mixed(index) % 2001) as f32 / 1000.0 - 1.0;
        let numbers = (1..=rows * columns).map(number).collect();
        Tensor::from_vec(numbers, (rows, columns), &Device::Cpu).unwrap()
    }

    fn rounded(weights: &Tensor) -> Result<Matrix, MatrixError> {
        Matrix::rounded(&QTensor::quantize(weights, GgmlDType::F32).unwrap())
    }

    #[test]
    fn products_are_those_of_the_weights_whether_of_one_vector_or_of_many() {
        for (rows, columns) in [(1, 32), (150, 96), (ROWS_AT_ONCE + 7, 64)] {
            let (weights, x) = (numbers(rows, columns), numbers(3, columns));
            let exact = x.matmul(&weights.t().unwrap()).unwrap().to_vec2::<f32>().unwrap();
            let matrix = rounded(&weights).unwrap();
            let together = matrix.forward(&x).unwrap().to_vec2::<f32>().unwrap();
            for vector in 0..3 {
                let alone = matrix.forward(&x.narrow(0, vector, 1).unwrap()).unwrap().to_vec2::<f32>().unwrap();
                for row in 0..rows {
                    let (exact, one, other) = (exact[vector][row], alone[0][row], together[vector][row]);
                    assert!((one - other).abs() < 1e-4, "{one} {other}");
                    // Each weight errs by less than half a 127th, one way or the other.
                    assert!((exact - one).abs() < 0.06, "{exact} {one}");
                }
            }
        }
    }

    #[test]
    fn a_weight_is_off_by_half_a_step_at_most() {
        let weights = numbers(40, 64);
        let matrix = rounded(&weights).unwrap();
        let weights = weights.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (weights, rounded) in weights.chunks(BLOCK).zip(matrix.weights().chunks(BLOCK)) {
            let step = weights.iter().fold(0.0_f32, |largest, weight| largest.max(weight.abs())) / MAX_CODE;
            let worst = weights.iter().zip(rounded).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max);
            assert!(worst <= step * 0.501, "{worst} {step}");
        }
        let zeros = Tensor::zeros((2, 32), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(rounded(&zeros).unwrap().weights().iter().all(|weight| weight.to_bits() == 0));
    }

    #[test]
    fn widths_and_weights_that_cannot_be_are_errors() {
        let of = |weights: Vec<f32>| rounded(&Tensor::new(vec![weights], &Device::Cpu).unwrap());
        assert!(matches!(of(vec![1.0; 33]), Err(MatrixError::Width(33))));
        for weight in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut weights = vec![1.0; 32];
            weights[7] = weight;
            assert!(matches!(of(weights), Err(MatrixError::NotFinite)));
        }
    }
}
