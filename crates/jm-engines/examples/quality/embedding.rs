//! Embedding: whether questions find the note that answers them, in their own language and in the other one.

use std::time::Instant;

use anyhow::{Result, anyhow};
use jm_engines::{Call, EmbeddingEngine};
use jm_tasks::Purpose;

use crate::{
    embedded, loaded,
    report::{Bound, Report, Row, Unit, whole},
};

const FIRST: &str = "questions that find their note first";
/// Of a hundred questions.
const FOUND: Bound = Bound::AtLeast(80.0);
/// For a hundred short texts.
const TIME: Bound = Bound::Below(10.0);
const SHORT_TEXTS: usize = 100;

/// Notes of a small company's people: some are about things that are close to each other.
const NOTES: [&str; 18] = [
    "Planning for the third quarter: the marketing budget is cut by fifteen percent, and the trade fair in Hamburg is \
     off. Two interns start in July.",
    "产品评审会纪要：新版录音界面下周四上线，先给内测用户使用。旧手机上波形绘制太慢，需要优化。",
    "The lease of the office on Mill Street ends in November. The landlord wants eight percent more. Laura looks at two \
     other buildings near the station.",
    "客户张先生来电投诉，上周五收到的打印机无法开机，要求换货或者退款。已安排售后明天上门检查。",
    "Bug report: the app crashes when the phone runs out of storage while a recording is being saved. The first part of \
     the recording must be kept.",
    "部门团建定在九月十二日，地点是西山森林公园，早上八点在公司门口集合，请大家带好雨具。",
    "Notes on the interview with the backend candidate: strong in databases, knows Rust, little experience with message \
     queues. Invite for a second round.",
    "数据库迁移方案：周六凌晨两点停机，预计四十分钟完成。如果失败，立即回滚到备份。",
    "Grandmother's apple cake: four apples, two hundred grams of flour, a hundred and fifty of sugar, three eggs, a \
     little cinnamon. Forty-five minutes at 180 degrees.",
    "体检结果：血压略高，医生建议少吃盐，每天散步半小时，三个月后复查。",
    "The tax adviser needs the receipts of last year by the end of March, above all those for travel and for the new \
     laptops.",
    "英语课笔记：虚拟语气表示与事实相反的假设，例如“如果我是你”。下节课小测验。",
    "Trip to Kyoto: flights are booked for the third of April, the hotel is near Nijo castle. Still to do: rail passes, \
     a table at the tofu restaurant.",
    "与供应商谈判：对方同意把交货时间从六周缩短到四周，但单价上涨百分之三。合同下周签。",
    "Security review: passwords of the old accounts have to be changed, and two-factor login becomes mandatory for \
     everybody from May on.",
    "孩子的家长会在周三晚上七点，班主任会讲期中考试成绩和春游安排。",
    "The car failed its inspection: the front brakes are worn and one headlight is too weak. The garage can repair it on \
     Monday for about 600 euros.",
    "读书笔记：作者认为，好的习惯来自环境的改变，而不是意志力。把手机放在另一个房间，就能更专心。",
];

/// A question for each note, in the note's language and in the other one. Written before they were tried, and none was
/// changed since.
const QUESTIONS: [[&str; 2]; NOTES.len()] = [
    ["How much less can we spend on marketing?", "市场预算要减少多少？"],
    ["新的录音界面什么时候上线？", "When will beta testers get the new recording screen?"],
    ["Why do we have to look for another office?", "我们为什么要找新的办公室？"],
    ["谁投诉打印机坏了？", "Whose printer does not turn on?"],
    ["What happens to a recording when there is no space left on the phone?", "手机没有空间时，录音会怎么样？"],
    ["团建在哪里集合？", "Where do we meet for the team outing?"],
    ["Who should come back for another interview?", "应该请谁来参加第二轮面试？"],
    ["数据库迁移要停机多久？", "How long will the service be down for the database migration?"],
    ["How long does the apple cake stay in the oven?", "苹果蛋糕要烤多久？"],
    ["医生建议我多久散步一次？", "How often should I go for a walk, according to the doctor?"],
    ["When does the tax adviser need last year's receipts?", "税务顾问什么时候要去年的票据？"],
    ["下次英语课要考什么？", "What will the next English lesson's test be about?"],
    ["What is still to do for the trip to Kyoto?", "去京都还有哪些事情没有办？"],
    ["供应商涨价多少？", "By how much does the supplier raise its prices?"],
    ["From which month on is two-factor login mandatory?", "双重验证从几月开始强制？"],
    ["家长会是什么时候？", "When is the parents' evening at school?"],
    ["How much will the repair of the car cost?", "修车大概要花多少钱？"],
    ["怎样才能不被手机分心？", "How can I be less distracted by my phone?"],
];

pub(crate) async fn measure(report: &mut Report) -> Result<()> {
    let engine = loaded(embedded().embedding())?;
    let engine = engine.as_ref();
    let notes = vectors(engine, &NOTES.map(str::to_owned), Purpose::Passage).await?;
    let input = format!("{} questions in the note's language", NOTES.len());
    let figure = found(engine, &notes, &QUESTIONS.map(|[own, _]| own)).await?;
    report.add(Row { measure: FIRST, input, figure, unit: Unit::Percent, bound: FOUND });
    // No bound: a model of this size takes the language for part of the meaning, and prefers notes in the question's.
    let input = format!("the same {} in the other language", NOTES.len());
    let figure = found(engine, &notes, &QUESTIONS.map(|[_, other]| other)).await?;
    report.add(Row { measure: FIRST, input, figure, unit: Unit::Percent, bound: Bound::None });

    // No two are the same.
    let texts: Vec<_> = QUESTIONS.iter().flatten().cycle().zip(1..=SHORT_TEXTS).collect();
    let texts: Vec<_> = texts.into_iter().map(|(question, number)| format!("{number}. {question}")).collect();
    let begun = Instant::now();
    vectors(engine, &texts, Purpose::Passage).await?;
    report.add(Row {
        measure: "time of embedding",
        input: format!("{SHORT_TEXTS} short texts"),
        figure: begun.elapsed().as_secs_f64(),
        unit: Unit::Seconds,
        bound: TIME,
    });
    Ok(())
}

/// How many of a hundred questions have their own note nearest, among all notes in both languages.
async fn found(engine: &dyn EmbeddingEngine, notes: &[Vec<f32>], questions: &[&str]) -> Result<f64> {
    let questions: Vec<_> = questions.iter().map(|&question| question.to_owned()).collect();
    let questions = vectors(engine, &questions, Purpose::Query).await?;
    let found = questions.iter().enumerate().filter(|(note, question)| nearest(notes, question) == Some(*note)).count();
    Ok(100.0 * whole(found) / whole(NOTES.len()))
}

async fn vectors(engine: &dyn EmbeddingEngine, texts: &[String], purpose: Purpose) -> Result<Vec<Vec<f32>>> {
    let embeddings = engine.embed(texts, purpose, &Call::default()).await;
    Ok(embeddings.map_err(|error| anyhow!("{error}"))?.vectors)
}

/// Which of the notes is nearest; vectors are of length 1.
fn nearest(notes: &[Vec<f32>], question: &[f32]) -> Option<usize> {
    let similarity = |note: &[f32]| note.iter().zip(question).map(|(a, b)| a * b).sum::<f32>();
    let similarities = notes.iter().map(|note| similarity(note)).enumerate();
    similarities.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(index, _)| index)
}
